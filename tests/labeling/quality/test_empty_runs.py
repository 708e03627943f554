"""What reads a run says something sensible of one in which nothing was found, or in which no picture came through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gazetteer.jobs.cli.main import main
from gazetteer.labeling.quality.report import run_quality
from tests.support.system.running import FEW

SERIAL = [*FEW, "executor=serial", "images=4", "heldout=0.5"]
SETTINGS = {
    "nothing found": [*SERIAL, "detector.box_threshold=0.9999"],
    "no picture": [
        *SERIAL, "vocabulary.ask=both", f"vocabulary.nouns={__name__}:broken", "coverage.first=1.0",
        "max_failed_fraction=1.0",
    ],
}  # fmt: skip


def broken(prompt: str) -> list[str]:
    raise ValueError("no noun today")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind a finished run, made by the command."""
    folder = tmp_path_factory.mktemp("empty")
    prompts = folder / "prompts.txt"
    prompts.write_text("a boat on the sea\na dog on grass\nthe sun\na tree\n")
    made = {}
    for number, (kind, settings) in enumerate(SETTINGS.items()):
        made[kind] = folder / str(number)
        assert main(["label", "--out", str(made[kind]), "--set", *settings, f"prompts.path={prompts}"]) == 3 * number
    return made


def said(capsys: pytest.CaptureFixture[str], words: list[str], expected: int) -> str:
    capsys.readouterr()
    assert main(words) == expected
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_reader_ends_with_a_sentence(
    runs: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, bad = str(runs[kind]), 0 if kind == "nothing found" else 2
    prompts = f"prompts.path={runs[kind].parent / 'prompts.txt'}"
    settings = ["--set", *SETTINGS[kind], prompts]
    said(capsys, ["summary", run], 0)
    assert "concepts: as before" in said(capsys, ["compare", run, str(runs["no picture"])], 0)
    said(capsys, ["atlas", run, "--out", str(tmp_path / "atlas")], 0)
    text = said(capsys, ["layout", "evaluate", run, "--stored", *settings], 2)
    assert ("names a concept that its picture shows" if bad == 0 else "has no discovery pictures") in text
    text = said(capsys, ["causal", run, "--features", "1", "--images", "1", *settings], bad)
    assert bad == 0 or "has no held-out pictures" in text
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps([{"concept": "dog", "strength": 2.0}]))
    drawn = ["--edits", str(edits), "--prompt", "a dog", "--out", str(tmp_path / "drawn")]
    missing = "No feature of" if kind == "nothing found" else "has no discovery pictures"
    assert missing in said(capsys, ["steer", "draw", run, *drawn, *settings], 2)
    assert "held-out prompts" in said(capsys, ["steer", "evaluate", run, "--quick", *settings], 2)


def test_quality_of_a_run_in_which_nothing_was_found(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, ["quality", "--no-accuracy", str(runs["nothing found"])], 0)
    assert re.search(r" cond +\d\.\d\d +- +- +-$", text, re.MULTILINE)
    result = run_quality(runs["nothing found"])
    assert [site["mean_heldout_iou"] for site in result["sites"]] == [None] and result["best_block_by_t"] == {}
    assert set(result["shuffled"].values()) == {0}


def test_quality_of_a_run_without_a_picture_is_refused(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no picture, so there is nothing to measure" in said(capsys, ["quality", str(runs["no picture"])], 2)
