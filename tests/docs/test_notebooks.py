"""The notebooks of `examples/` run from top to bottom, one after the other in one kernel, on a small run.

What is committed shows the runs that a reader makes; only the size differs here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.system.running import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SMALLER = {
    "01-first-run": "",
    "02-your-own-model": "generation.steps=2 images=4",
    "03-layout-and-steering": "generation.steps=4",
}
MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scenes_run: Path) -> Path:
    """The repository's folder as a reader has it, with a finished run in it."""
    there = tmp_path_factory.mktemp("notebooks")
    shutil.copytree(scenes_run, there / "runs" / "scenes")
    (there / "data").symlink_to(ROOT / "data")
    (there / "examples").mkdir()
    return there


@pytest.fixture(scope="module")
def kernel(folder: Path) -> Iterator[Any]:
    """One kernel for all of them, so that the libraries are loaded once."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    here = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), here)))}
    manager.start_kernel(cwd=str(folder / "examples"), env=environment)  # as Jupyter does
    yield manager
    manager.shutdown_kernel(now=True)


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(SMALLER)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_opens_on_results(path: Path, folder: Path, kernel: Any) -> None:
    notebook = nbformat.read(path, 4)
    setting = f"import os\nos.environ['GAZETTEER_SET'] = {SMALLER[path.stem]!r}"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(setting))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    client.kc = kernel.client()
    client.kc.start_channels()
    client.kc.wait_for_ready(timeout=60)
    try:
        client.execute(reset_kc=False, cleanup_kc=False)
    finally:
        client.kc.stop_channels()
    first, *others = [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]
    assert {"text/html", "image/png"} & set(first.outputs[-1].data)
    assert all(cell.outputs for cell in others)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_shows_results_is_small_and_names_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells)
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    shown = {kind for output in cells[0]["outputs"] for kind in output.get("data", {})}
    assert {"text/html", "image/png"} & shown
    assert not [word for word in (str(ROOT), "/home/", "/root/", "/tmp/") if word in text]
