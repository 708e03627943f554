"""Every block of the guide and of the README is typed as it stands, page by page, in a folder with a run in it.

Left out are only the blocks under `<!-- not run: why -->`; their commands are parsed (test_pages.py). Two things differ
from what a reader gets: `runs/scenes` is a run of few pictures and steps, and runs and edits of weights that a page
makes are as small.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gazetteer.attribution.edits import defaults
from gazetteer.attribution.edits.defaults import evaluated
from gazetteer.data.inputs.edit_files import read_edits
from gazetteer.jobs.config.schema import load_config
from tests.support.system.pages import Block, blocks, pages, title
from tests.support.system.running import FEW, ROOT, gazetteer, in_process

STARTS_RAY = ("docs/guide/cluster.md",)
STEPS = "generation.steps=4"
"""Of the run that `runs/scenes` is (tests/conftest.py)."""
SMALLER = {
    "label": [*FEW, "images=6"],
    "nightly": [*FEW, "images=6"],
    "layout": [STEPS],
    "steer": [STEPS],
    "causal": [STEPS, "causal.images=2"],
    "attribute edit": ["generation.steps=2"],
}
"""By verb what is put behind the settings of a command that has no configuration of its own."""
SHELL = {"mkdir", "cp"}

FAMILIES = "docs/guide/families.md"  # beside models of its own: test_families.py
GUIDE = [page for page in pages() if title(page) == "README.md" or title(page).startswith("docs/guide/")]
GUIDE = [page for page in GUIDE if title(page) != FAMILIES]
PAGES = [
    pytest.param(page, id=page.stem, marks=[pytest.mark.alone] if title(page) in STARTS_RAY else []) for page in GUIDE
]


@pytest.fixture
def folder(tmp_path: Path, scenes_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader in the repository's folder sees: `data/`, and a finished run that a page may add to."""
    shutil.copytree(scenes_run, tmp_path / "runs" / "scenes")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(defaults, "evaluated", lambda *given: replace(evaluated(*given), tune_steps=2, context=4))
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_works(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [block for block in blocks(page) if block.why is None]
    assert found
    for block in found:
        if block.language == "sh":
            for words in block.commands():
                type_command(words, folder)
        elif block.language == "python":
            exec(compile(block.text, title(page), "exec"), {"__name__": "__main__"})
            assert capsys.readouterr().out or ".save(" in block.text, block.text
        else:
            write_file(block, folder)


def type_command(words: list[str], folder: Path) -> None:
    program, *arguments = words
    if program == "make":
        done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    elif program in SHELL:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    else:
        assert program == "gazetteer", words
        done = run_gazetteer(arguments, folder)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    assert done.stdout or program in SHELL, words


def run_gazetteer(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    verb = arguments[0]
    if small := SMALLER.get(verb) or SMALLER.get(" ".join(arguments[:2])):
        arguments = [*arguments, "--set", *(["images=4"] if "--config" in arguments else small)]
    if verb == "token":  # not where Ray of whoever tests looks for it
        arguments = [*arguments, "--file", str(folder / "token")]
    if verb == "label":
        return gazetteer(*arguments, cwd=folder)
    try:
        return in_process(*arguments)
    except SystemExit as end:  # --version
        return subprocess.CompletedProcess(arguments, int(end.code or 0), "said", "")


def write_file(block: Block, folder: Path) -> None:
    """A block that is a file is written, and read as what it is."""
    assert block.file, f"a {block.language} block without a name: {block.text}"
    place = folder / block.file
    place.write_text(block.text if block.language == "yaml" else block.text.split("\n", 1)[1], encoding="utf-8")
    if block.language == "yaml":
        if "\nedits:" in block.text:
            assert read_edits(place)
        else:
            assert load_config(place).executor in block.text
