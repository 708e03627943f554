"""`gazetteer steer draw` of a run draws with the features that the run's labels number."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gazetteer.data.scenes.weights import MODELS


def test_features_of_a_run_are_not_looked_up_in_other_autoencoders(
    scenes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gazetteer.jobs.cli.main import main

    shutil.copytree(MODELS / "saes", tmp_path / "saes")
    config = next((tmp_path / "saes").glob("*/config.json"))
    config.write_text(config.read_text() + " ")
    (tmp_path / "edits.json").write_text('[{"concept": "sky"}]')
    command = ["steer", "draw", str(scenes_run), "--edits", str(tmp_path / "edits.json"), "--prompt", "the sky"]
    command += ["--out", str(tmp_path / "out"), "--set", "generation.steps=3"]
    assert main([*command, f"saes={tmp_path / 'saes'}"]) == 2
    assert "was made with; these differ: saes." in capsys.readouterr().err and not (tmp_path / "out").exists()
