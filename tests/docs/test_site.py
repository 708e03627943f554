"""The site is built without a warning, and its pages ask nothing of the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.system.running import ROOT


def test_it_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"([^\"]+)\"", html)
        loaded += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*href=\"([^\"]+)\"", html)
        loaded += re.findall(r"<link[^>]*href=\"([^\"]+)\"[^>]*rel=\"(?:stylesheet|preconnect|icon)\"", html)
        assert [address for address in loaded if "//" in address] == [], page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:url|@import)[^;]{0,9}https?:", sheet.read_text(encoding="utf-8")), sheet.name
    python = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    assert "The trusted labels (labels.parquet), best first within a feature." in python
