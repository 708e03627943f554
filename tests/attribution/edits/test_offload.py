"""Weights that are elsewhere while the model does not run are refused, by configuration and as they are."""

from __future__ import annotations

from pathlib import Path

import accelerate
import pytest
import torch

from gazetteer.attribution.edits.delta import ablation, applied
from gazetteer.attribution.scores.score import ScoreConfig, score_weights
from gazetteer.data.core.errors import InputError
from gazetteer.jobs.cli.main import parser
from tests.support.models.tiny_pipeline import tiny_pipeline


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("verb", ["score", "edit", "evaluate"])
def test_every_verb_refuses_an_offloaded_model_before_it_is_read(
    verb: str, offload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    concept = ["--concept", "dog"] if verb in ("score", "edit") else []
    settings = [f"model.path={tmp_path / 'none'}", "model.device=cuda", f"model.offload={offload}"]
    command = ["attribute", *verb.split(), *concept, "--out", "out", "--set", *settings]
    arguments = parser().parse_args(command)
    with pytest.raises(InputError, match=f"model.offload={offload} keeps them elsewhere; leave it out"):
        arguments.action(arguments)


def test_weights_that_are_nowhere_until_the_model_runs_are_a_sentence() -> None:
    """As pipelines have them that are offloaded layer by layer, with the CPU as the accelerator."""
    pipe = tiny_pipeline()
    edit = ablation(dict(pipe.unet.named_parameters()), {"conv_in.weight": torch.arange(3)}, {})
    accelerate.cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    with pytest.raises(InputError, match="load it without sequential offload"):
        score_weights(pipe, ScoreConfig(concept="dog", steps=2, fraction=0.02))
    with pytest.raises(InputError, match="load it without sequential offload"), applied(pipe.unet, edit):
        pass
