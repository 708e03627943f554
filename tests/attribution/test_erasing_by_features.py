"""Erasing through SAE features: what is chosen, what is taken out of a block's update, and of which rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cases import REPORT, Case
from gazetteer.attribution.evaluation.evaluators import Evaluators, painter
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.features.erasing import FeatureErasers, Profile, _Change
from gazetteer.attribution.objective.objectives import heard
from gazetteer.attribution.objective.prompts import without
from gazetteer.attribution.objective.samples import predict
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.capture import cells, updates
from gazetteer.diffusion.generate import GenerationConfig
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.shape import SAEConfig
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

PROMPTS = {"a dog at night": frozenset({"dog"}), "a red house": frozenset({"house"})}


@pytest.fixture(scope="module")
def erasers() -> FeatureErasers:
    pipe: Any = tiny_pipeline()
    methods = Methods(pipe, MethodConfig(steps=3, context=1), ["dog", "house"], PROMPTS, without)
    saes = {}
    for seed, t in enumerate((1.0, 0.0)):
        sae = SparseAutoencoder(SAEConfig(d=32, n=64, k=4)).initialise(seed)
        saes[Site(BLOCKS[1], "cond", t)] = sae.eval().requires_grad_(False)
    return FeatureErasers(methods.problems, saes)


def test_features_are_chosen_by_their_part_of_the_activity_beyond_other_prompts() -> None:
    profile = Profile(torch.tensor([4.0, 2.0, 2.0, 0.0]).double(), torch.tensor([1.0, 1.0, 0.0, 6.0]).double())
    # 4/8 - 1/8 = 3/8, 2/8 - 1/8 = 1/8, 2/8 - 0 = 2/8, 0 - 6/8
    assert profile.chosen(0.25).tolist() == [0] and profile.chosen(0.5).tolist() == [0, 2]
    assert profile.chosen(1.0).tolist() == [0, 2, 1]  # never what is less active on the concept
    assert profile.typical(torch.tensor([3])) == 0 and profile.typical(torch.tensor([0])) == 3


def written(erasers: FeatureErasers, method: str, dose: float, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What the block writes at a step, [cells, d], plain and with the concept erased."""
    step = 0 if t == 1.0 else 2
    samples = trajectory(erasers.problems.pipe, ["a dog at night"], [5], steps=3, only=[step])
    unet, seen = erasers.problems.denoiser, []
    with torch.no_grad(), updates(unet, [BLOCKS[1]], lambda _, update: seen.append(cells(update)[0])):
        predict(unet, samples, samples.cond)
    hear = updates(unet, [BLOCKS[1]], lambda _, update: seen.append(cells(update)[0]))
    with torch.no_grad(), erasers.erased(method, "dog", dose), hear:
        predict(unet, samples, samples.cond)
    return seen[0], seen[1]


@pytest.mark.parametrize("t", [1.0, 0.0])
def test_what_the_concepts_features_write_goes_or_is_turned_round_or_replaced(
    erasers: FeatureErasers, t: float
) -> None:
    site = Site(BLOCKS[1], "cond", t)
    with erasers.erased("sae_ablate", "dog", 0.25):
        pass
    profile, sae = erasers._profiles["dog"][site], erasers.saes[site]
    plain, _ = written(erasers, "sae_ablate", 0.25, t)
    codes = sae.encode(plain)

    def codes_of(chosen: torch.Tensor, least: torch.Tensor | float = 0.0) -> torch.Tensor:
        dense = torch.zeros(len(plain), 64).scatter_add(1, codes.indices, codes.values)[:, chosen]
        return dense * (dense > least)

    chosen = profile.chosen(0.25)
    own = codes_of(chosen)
    assert own.any()
    for method, expected in (
        ("sae_ablate", plain - own @ sae.decoder[chosen]),
        ("sae_replace", plain - own @ sae.decoder[chosen] + own.sum(1)[:, None] * sae.decoder[profile.typical(chosen)]),
    ):
        assert torch.allclose(written(erasers, method, 0.25, t)[1], expected, atol=1e-4)
    few = profile.chosen(0.03)
    turned = codes_of(few, profile.other[few].float())
    expected = plain - 3.0 * turned @ sae.decoder[few]
    assert torch.allclose(written(erasers, "sae_negative", 2.0, t)[1], expected, atol=1e-4)


def test_what_is_written_instead_is_as_much_however_long_vectors_are() -> None:
    sae = SparseAutoencoder(SAEConfig(8, 16, 4)).initialise(0).requires_grad_(False)
    sae.decoder[5] *= 3.0
    named, other = torch.zeros(16).double(), torch.zeros(16).double()
    named[[2, 3]], other[5] = 1.0, 1.0
    change = _Change("sae_replace", 2 / 16, sae, Profile(named, other))
    written = sae.decoder[change.chosen] - change.vectors
    assert sorted(change.chosen.tolist()) == [2, 3]
    torch.testing.assert_close(written, (sae.decoder[5] / 3.0).expand(2, 8))


def test_erasing_paints_other_pictures_and_ends_with_its_context(erasers: FeatureErasers) -> None:
    pipe = erasers.problems.pipe
    methods = Methods(pipe, erasers.problems.config, ["dog", "house"], PROMPTS, without)
    cases = [Case("a dog", 3, frozenset({"dog"}), REPORT)]
    evaluators = Evaluators(painter(pipe, GenerationConfig(steps=3)), lambda images: [{"dog": 0.1}] * len(images))
    pairs = PicturePairs(methods, evaluators, cases, 1, erasers=erasers)
    outcome = pairs.outcome("erase", "sae_ablate", "dog", 0.25, REPORT)
    assert outcome.weights == 0 and outcome.target.tolist() == [[1.0, 1.0]]
    plain = evaluators.intact(cases)[0].image
    with pairs.changed("erase", "sae_ablate", "dog", 0.25):
        assert (evaluators.observe(cases)[0].image != plain).any()
    assert np.array_equal(evaluators.observe(cases)[0].image, plain)
    with pytest.raises(InputError, match="needs autoencoders"):
        PicturePairs(methods, evaluators, cases, 1).outcome("erase", "sae_ablate", "dog", 0.25, REPORT)
    with pytest.raises(InputError, match="cond branch"):
        FeatureErasers(methods.problems, {})


def test_what_is_erased_is_measured_before_and_its_time_counts(erasers: FeatureErasers) -> None:
    unet, calls = erasers.problems.denoiser, list[int]()
    fresh = FeatureErasers(erasers.problems, erasers.saes)
    methods = SimpleNamespace(pipe=erasers.problems.pipe, denoiser=unet)
    evaluators = Evaluators(
        lambda prompts, _: [np.zeros((2, 2, 3), np.uint8) for _ in prompts], lambda images: [{}] * len(images)
    )
    cases = [Case("a dog", 0, frozenset({"dog"}), REPORT)]
    pairs = PicturePairs(methods, evaluators, cases, erasers=fresh)  # type: ignore[arg-type]
    handle = unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        opened = pairs.changed("erase", "sae_ablate", "dog", 0.1)
        assert calls
        spent = len(calls)
        with opened:
            assert len(calls) == spent
    finally:
        handle.remove()
    pairs = PicturePairs(methods, evaluators, cases, erasers=FeatureErasers(erasers.problems, erasers.saes))  # type: ignore[arg-type]
    pairs.outcome("erase", "sae_ablate", "dog", 0.1, REPORT)
    assert (pairs.seconds("erase", "sae_ablate", "dog", [0.1]) or 0.0) > 0.005  # it was the time of no work at all


def test_an_autoencoder_of_outputs_reads_outputs(erasers: FeatureErasers) -> None:
    site = Site(BLOCKS[1], "cond", 1.0, signal="output")
    saes = {site: SparseAutoencoder(SAEConfig(d=32, n=64, k=4)).initialise(2).eval().requires_grad_(False)}
    of_outputs = FeatureErasers(erasers.problems, saes)
    samples = trajectory(erasers.problems.pipe, ["a dog at night"], [5], steps=3, only=[0])
    unet = erasers.problems.denoiser
    with torch.no_grad():
        plain = cells(heard(unet, site.port, samples))
        with of_outputs.erased("sae_ablate", "dog", 0.25):
            erased = cells(heard(unet, site.port, samples))
        change = _Change("sae_ablate", 0.25, saes[site], of_outputs._profiles["dog"][site])
        assert change(plain).any()
        torch.testing.assert_close(erased, plain - change(plain), atol=1e-5, rtol=1e-4)
