"""`gazetteer steer draw` of a run draws with the features that the run's labels number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.data.scenes.weights import MODELS
from gazetteer.jobs.experiments import steer
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

NUMBERED = '[{"targets": [{"block": "mid_block.attentions.0", "branch": "cond", "t": 0.5, "features": [3]}]}]'


@pytest.mark.parametrize("edits", ['[{"concept": "sky"}]', NUMBERED])
def test_features_of_a_run_are_not_looked_up_in_other_autoencoders(
    edits: str, scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gazetteer.jobs.cli.main import main

    shutil.copytree(MODELS / "saes", tmp_path / "saes")
    config = next((tmp_path / "saes").glob("*/config.json"))
    config.write_text(config.read_text() + " ")
    (tmp_path / "edits.json").write_text(edits)
    command = ["steer", "draw", str(scenes_run), "--edits", str(tmp_path / "edits.json"), "--prompt", "the sky"]
    command += ["--out", str(tmp_path / "out"), "--set", "generation.steps=3"]
    assert main([*command, f"saes={tmp_path / 'saes'}"]) == 2
    assert "was made with; these differ: saes." in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("edits", ['[{"concept": "sky"}]', NUMBERED])
def test_a_run_that_is_not_there_is_no_run_of_the_embedded_models(
    edits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gazetteer.jobs.cli.main import main

    (tmp_path / "edits.json").write_text(edits)
    command = ["steer", "draw", str(tmp_path / "none"), "--edits", str(tmp_path / "edits.json"), "--prompt", "the sky"]
    assert main([*command, "--out", str(tmp_path / "out"), "--set", "generation.steps=2"]) == 2
    assert "no such folder" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_named_block_without_the_concept_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = [Edit("dog", blocks=("down", "mid"), choice="labels"), Edit("cat", blocks=("mid",), choice="labels")]
    monkeypatch.setattr(
        steer, "resolve", lambda edits, run: tuple(e.with_targets([Target("mid", features=(1,))]) for e in edits)
    )
    steer._resolved(edits, "run")
    assert capsys.readouterr().err == "no feature carries 'dog' in down: the edit leaves it out\n"


@pytest.mark.parametrize(
    ("region", "strength", "said"), [([0.0, 0.0, 0.5, 0.5], 1e-9, True), ([0.0, 0.0, 0.5, 0.5], 0.0, False),
                                     ([0.0, 0.0, 0.5, 0.5], 2.0, False), ([0.0, 0.0, 0.01, 0.01], 4.0, False)]
)  # fmt: skip
def test_a_picture_that_edits_leave_as_it_was_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], region: list[float], strength: float, said: bool
) -> None:
    from gazetteer.jobs.cli.main import main

    tiny_pipeline().save_pretrained(tmp_path / "model")
    config = {
        "name": "tiny", "prompts": {"path": "none.txt"}, "model": {"path": "model"}, "saes": "saes",
        "generation": {"steps": 2, "guidance": 3.0, "blocks": [BLOCKS[1]], "exact": False},
        "vocabulary": {"concepts": ["sea"]}, "detector": {"path": "none"}, "segmenter": {"path": "none"},
    }  # fmt: skip
    vector = [float(i % 5 - 2) for i in range(32)]
    edit = {"targets": [{"block": BLOCKS[1], "vector": vector}], "strength": strength, "region": {"box": region}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "edits.json").write_text(json.dumps([edit]))
    command = ["steer", "draw", "--edits", str(tmp_path / "edits.json"), "--prompt", "the sea", "--out"]
    assert main([*command, str(tmp_path / "out"), "--config", str(tmp_path / "tiny.yaml")]) == 0
    assert ("0-edited.png is as without its edits" in capsys.readouterr().err) == said
