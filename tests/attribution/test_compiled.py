"""Weights of compiled networks are scored as those of plain ones are; what is not heard is said, not scored as 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gazetteer.attribution.features.activity import activity, patching
from gazetteer.attribution.objective.objectives import Distance, FeatureActivation
from gazetteer.attribution.objective.problem import diffusion_problem
from gazetteer.attribution.objective.samples import freeze_target
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.score import ScoreConfig, Scored, score_weights
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.diffusion.test_watch import in_place, traced, wrap
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

SITE = Site(BLOCKS[1], "cond", 0.5)


@pytest.fixture(scope="module")
def compiled() -> Any:
    """A pipeline whose U-Net was compiled in place and has run since, so that its code knows no hook."""
    torch._dynamo.reset()
    pipe = tiny_pipeline()
    in_place(pipe)
    scored(pipe, "magnitude")  # asks for the same predictions
    return pipe


def scored(pipe: Any, estimator: str) -> Scored:
    return score_weights(pipe, ScoreConfig("dog", estimator=estimator, fraction=0.2, steps=2, by_step=True))


def expect_same(got: Scored, plain: Scored) -> None:
    assert max(float(values.abs().max()) for values in plain.scores.values()) > 0
    for name, values in plain.scores.items():
        torch.testing.assert_close(got.scores[name], values)
        assert torch.equal(got.chosen[name], plain.chosen[name])
    assert got.steps == pytest.approx(plain.steps) and got.value == pytest.approx(plain.value)


@pytest.mark.parametrize("estimator", ["wanda", "cad"])
def test_scores_steps_and_choice_are_those_of_the_plain_network(estimator: str, compiled: Any) -> None:
    plain = scored(tiny_pipeline(), estimator)
    expect_same(scored(compiled, estimator), plain)
    wrapped = tiny_pipeline()
    wrap(wrapped)
    expect_same(scored(wrapped, estimator), plain)


def test_features_are_heard_as_those_of_the_plain_network(compiled: Any) -> None:
    sae = SparseAutoencoder(SAEConfig(d=32, n=64, k=6)).initialise(0)

    def measured(pipe: Any) -> list[torch.Tensor]:
        samples, unet = trajectory(pipe, ["a red house", "a dog"], [1, 2], steps=3, only=[1]), pipe.unet
        weights = dict(list(scope_weights(unet, "ff").items())[:2])
        feature = diffusion_problem(unet, FeatureActivation(SITE.port, 3, sae), samples, weights)
        return [
            activity(unet, samples, SITE, sae), patching(unet, Distance(), freeze_target(unet, samples), SITE, sae),
            *feature.gradient().values(), feature.values(),
        ]  # fmt: skip

    plain = measured(tiny_pipeline())
    assert all(float(values.abs().max()) > 0 for values in plain[:2])
    for values, expected in zip(measured(compiled), plain, strict=True):
        torch.testing.assert_close(values, expected)


def test_a_network_whose_layers_are_not_heard_gets_no_scores_by_inputs() -> None:
    pipe = tiny_pipeline()
    traced(pipe)
    with pytest.raises(InputError, match="none of the layers that are scored was heard"):
        scored(pipe, "wanda")
