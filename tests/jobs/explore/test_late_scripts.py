"""A page that is served finds what its address names, however late its last script comes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gazetteer.jobs.explore.server.pages import ON_ATLAS
from gazetteer.labeling.atlas import write_atlas
from gazetteer.labeling.atlas.pages import PAGES
from tests.support.runs.atlas_run import make_run
from tests.support.servers.browser import Page
from tests.support.system.running import ROOT

STATIC = ROOT / "jobs" / "explore" / "static"


class Late(SimpleHTTPRequestHandler):
    """Serves a folder, the script of notes and stars after two seconds."""

    def do_GET(self) -> None:
        if self.path == "/assets/live.js":
            time.sleep(2)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.browser
def test_the_list_of_starred_features_opens_by_its_address(driver: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pages = write_atlas(run, tmp_path / "pages").index.parent
    (pages / "index.html").write_text(next(page for page in PAGES if page.name == "index").html(ON_ATLAS, live=True))
    for name in ("asking.js", "live.js", "explore.css"):
        shutil.copy(STATIC / name, pages / "assets" / name)
    (pages / "api").mkdir()
    row = run.read_final("features").slice(5, 1).to_pylist()[0]
    key = f"{row['block']}-{row['branch']}-t{row['t']:.2f}/{row['feature']}"
    (pages / "api" / "notes").write_text(json.dumps({key: {"star": True, "text": ""}}))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Late, directory=str(pages))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = Page(driver, f"http://127.0.0.1:{server.server_port}")
        page.open("index", named="starred")
        page.wait("return document.querySelectorAll('.entry').length === 1")
        assert f"no. {row['feature']}" in page.one(".entry .place").text
        server.shutdown()
