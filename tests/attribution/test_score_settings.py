"""What `attribute score` is told is heard: objectives, bases, signs, steps and samplers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import HeunDiscreteScheduler, UniPCMultistepScheduler
from torch import nn

from gazetteer.attribution.objective.problem import Problem, diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import noised_images
from gazetteer.attribution.scores import score
from gazetteer.attribution.scores.controls import CONTROLS
from gazetteer.attribution.scores.score import OBJECTIVES, ScoreConfig, _selection, score_weights
from gazetteer.data.core.errors import InputError
from tests.support.models.tiny_pipeline import tiny_pipeline


def test_objectives_and_bases_that_would_not_be_heard_are_refused() -> None:
    feature = {"feature": "mid_block.attentions.0-cond-t0.50:3", "prompts": ("a boat",)}
    assert ScoreConfig(**feature).objective == "erase" and ScoreConfig(**feature, objective="amplify").feature
    for wrong, words in (
        ({**feature, "objective": "no-such:thing"}, "A feature is its own objective"),
        ({"concept": "dog", "objective": "amplify", "base": "cat"}, "amplify compares with no base concept"),
    ):
        with pytest.raises(InputError, match=words):
            ScoreConfig(**wrong)


@pytest.mark.parametrize("estimator", CONTROLS)
def test_controls_take_weights_to_amplify_as_to_erase(estimator: str) -> None:
    signs = {goal: _selection(ScoreConfig("dog", objective=goal, estimator=estimator))[1].sign for goal in OBJECTIVES}
    assert set(signs.values()) == {"positive"}
    assert _selection(ScoreConfig("dog", objective="amplify"))[1].sign == "negative"


def test_rounds_of_iterated_see_early_and_late_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight pictures of four steps: parts of eight samples would each be one step's."""
    made: list[list[set[int]]] = []

    def recorded(unet: nn.Module, objective: object, samples: Samples, weights: object, batch: int = 8) -> Problem:
        made.append([set(part.timestep.tolist()) for part in samples.chunks(batch)])
        return diffusion_problem(unet, objective, samples, weights, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(score, "diffusion_problem", recorded)
    config = ScoreConfig("dog", estimator="iterated", objective="erase-live", fraction=0.05, steps=4, seeds=8, points=2)
    pipe = tiny_pipeline()
    score_weights(pipe, replace(config, by_step=True))
    mixed, by_step = made
    assert len(mixed) == len(by_step) == 4 and min(map(len, mixed)) > 1
    assert [len(part) for part in by_step] == [1] * 4 and len(set.union(*by_step)) == 4
    score_weights(pipe, replace(config, estimator="cad"))
    assert made[2] == by_step


def test_samplers_with_several_calls_a_step_are_refused_whatever_is_measured() -> None:
    tried = tiny_pipeline()
    latents = torch.zeros(1, 4, 8, 8)
    tried.scheduler = HeunDiscreteScheduler.from_config(tried.scheduler.config, prediction_type="epsilon")
    with pytest.raises(InputError, match="HeunDiscreteScheduler calls the denoiser 7 times for 4 steps"):
        noised_images(tried, latents, ["a dog"], steps=4)
    tried.scheduler = UniPCMultistepScheduler.from_config(tried.scheduler.config, prediction_type="v_prediction")
    with pytest.raises(InputError, match="UniPCMultistepScheduler does not say what a velocity is"):
        noised_images(tried, latents, ["a dog"], steps=4)
