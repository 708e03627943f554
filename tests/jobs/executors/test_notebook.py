"""`gazetteer.label` in a notebook, on Ray: interrupted, again and again in one kernel, while its loop runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.system.running import FEW, ROOT

pytestmark = pytest.mark.alone  # it starts Ray: executor=ray

BEGIN = f"""
import os, pathlib, signal, threading, time
import gazetteer as gz

def label(out):
    return gz.label(gz.load_config(None, [*{FEW!r}, "images=4", "executor=ray", "workers=1"]), out)

def interrupt_at_first_commit(out):
    while not list(pathlib.Path(out, "_meta", "commits").glob("*.json")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
"""
CELLS = {
    "interrupted": """
threading.Thread(target=interrupt_at_first_commit, args=("one",)).start()
try:
    label("one")
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
""",
    "again": 'print(label("one")["images"])',
    "nothing": 'print(label("one")["nothing_to_do"])',
    "after": """
import ray
print(ray.is_initialized(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
""",
}


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[[list[str]], list[Any]]:
    def run(cells: list[str]) -> list[Any]:
        written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        client = NotebookClient(written, kernel_name="python3", timeout=300)
        here = os.environ.get("PYTHONPATH")
        path = os.pathsep.join(filter(None, (str(ROOT), here)))
        client.execute(cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": path})
        return list(written.cells)

    return run


def test_label_runs_again_and_again_in_one_kernel(notebook: Callable[[list[str]], list[Any]]) -> None:
    _, *cells = notebook([BEGIN, *CELLS.values()])
    printed = {
        name: "".join(output.text for output in cell.outputs if output.get("name") == "stdout").strip()
        for name, cell in zip(CELLS, cells, strict=True)
    }
    assert printed == {
        "interrupted": "interrupted", "again": "4", "nothing": "True", "after": "False True",
    }  # fmt: skip
