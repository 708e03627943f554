"""`make test` runs both parts of the suite and fails when either does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.system.running import ROOT

# What starts Ray or a cluster, as the tests spell it.
STARTS_RAY = re.compile(r"executor=ray|import ray$|run_ray\(|ray_pools\(|ray_head\(|benchmarks/soak\.py", re.M)


def suite(folder: Path, side_by_side: str, alone: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The suite over two tests that say what they were and then do what is given."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = alone\n full\n")
    beside, apart = f"def test_beside():\n    {side_by_side}", f"@pytest.mark.alone\ndef test_alone():\n    {alone}\n"
    (folder / "tests").mkdir()
    (folder / "tests" / "test_some.py").write_text("\n".join(["import os, pytest", beside, apart]))
    command = [sys.executable, str(ROOT / "tests" / "suite.py"), "-m", "not full", "--workers", "1", *arguments]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    bare = outside | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist -p no:cacheprovider"}
    return subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=False)


IN_A_WORKER, IN_NONE = "assert 'PYTEST_XDIST_WORKER' in os.environ", "assert 'PYTEST_XDIST_WORKER' not in os.environ"


@pytest.mark.parametrize(
    ("side_by_side", "alone", "arguments", "code", "said"),
    [
        (IN_A_WORKER, IN_NONE, [], 0, "side by side: passed; alone: passed"),
        ("assert False", "pass", [], 1, "side by side: FAILED (exit code 1); alone: passed"),
        ("pass", "assert False", [], 1, "side by side: passed; alone: FAILED (exit code 1)"),
        ("pass", "pass", ["-k", "beside"], 0, "side by side: passed; alone: nothing to run"),
        ("pass", "pass", ["-k", "neither"], 5, "side by side: nothing to run; alone: nothing to run"),
    ],
)
def test_both_parts_run_and_count(
    tmp_path: Path, side_by_side: str, alone: str, arguments: list[str], code: int, said: str
) -> None:
    done = suite(tmp_path, side_by_side, alone, *arguments)
    assert done.returncode == code, done.stdout
    assert done.stdout.splitlines()[-1] == said


def test_whatever_starts_ray_is_marked() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert any(STARTS_RAY.search(path.read_text()) for path in files if path.name != "test_suite.py")
    for path in files:
        text = path.read_text()
        if STARTS_RAY.search(text) and path.name != "test_suite.py":
            assert "mark.alone" in text, f"{path.name} starts Ray; say pytestmark = pytest.mark.alone"
