"""Baselines of layout prediction find what was planted for them, and what is seen of a model is the model's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gazetteer.data.core.sites import Site, step_of
from gazetteer.diffusion.attention import capture_attention, token_places
from gazetteer.diffusion.capture import capture_updates, cells, updates
from gazetteer.diffusion.generate import Generator
from gazetteer.labeling.layout.calibration import LayoutFit, inputs_of
from gazetteer.labeling.layout.evaluation.baselines import (
    Neurons,
    attention_scores,
    fit_probe,
    out_of_fold,
    table_of_codes,
)
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.group import Group
from gazetteer.labeling.layout.evaluation.model_pass import PassRecord, noised, sampled
from gazetteer.labeling.layout.evaluation.reading import Reading
from gazetteer.labeling.layout.evaluation.step import StepEvaluation
from gazetteer.labeling.layout.metrics import Truth, fit_thresholds, macro_mean, pair_ious
from gazetteer.labeling.layout.run import LayoutRun, open_run
from gazetteer.labeling.layout.score_maps import evidence_maps
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.layout_runs import CONCEPTS, GENERATION, pipeline_run, random_saes, world_run
from tests.support.runs.small_world import MID, sky_world

GUIDED = replace(GENERATION, exact=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LayoutRun:
    return open_run(world_run(tmp_path_factory.mktemp("planted") / "run", sky_world(80), "a sky and a ball"))


def planted(truth: Truth, seed: int) -> np.ndarray:
    """Activations [N, cells, 4]: channel 1 is high in balls, 3 low in skies, the others say nothing."""
    fraction = (truth.pixels / truth.areas).transpose(0, 2, 1)
    dense = np.random.default_rng(seed).uniform(-0.5, 0.5, (*fraction.shape[:2], 4))
    dense[:, :, 1] += 6 * fraction[:, :, 0]
    dense[:, :, 3] -= 5 * fraction[:, :, 1]
    return dense.astype(np.float16)


def miou(scores: np.ndarray, truth: Truth) -> float:
    ious = pair_ious(scores, truth, fit_thresholds(scores, truth))
    return macro_mean(ious, np.ones((1, len(scores))))[0]


def test_a_probe_finds_planted_directions(run: LayoutRun) -> None:
    truth, held = (run.truth((8, 8), run.of_split(split)) for split in ("discovery", "heldout"))
    probe = fit_probe(planted(truth, 0).astype(np.float32), truth)
    fractions = (held.pixels / held.areas).transpose(0, 2, 1)
    best = miou(fractions.astype(np.float32), held)
    found = probe(planted(held, 1).astype(np.float32))
    assert miou(found, held) > best - 0.05 > 0.6
    assert np.abs(found / 8 - fractions).mean() < 0.05  # evidence is eight times the share
    other = out_of_fold(fit_probe, planted(truth, 0).astype(np.float32), truth)
    assert miou(other, truth) > 0.6 and not np.allclose(other, probe(planted(truth, 0).astype(np.float32)))


def test_neurons_are_the_most_unusual_channels() -> None:
    dense = np.array([[[0.0, 1, 0], [0, -1, 0], [9, 1, 0], [0, -1, 0]]], np.float16)  # deviations 3.9, 1 and none
    neurons = Neurons.of(dense, 1)
    codes = neurons.codes(MID, ["a"], dense, (2, 2))
    found = {
        cell: (feature, value) for cell, feature, value in zip(codes.cell, codes.feature, codes.value, strict=True)
    }
    assert {cell: feature for cell, (feature, _) in found.items()} == {0: 2, 1: 3, 2: 0, 3: 3}  # 2j high, 2j + 1 low
    assert found[2][1] == pytest.approx(6.75 / 3.897, abs=1e-3)


def test_neurons_with_counts_find_planted_channels(run: LayoutRun) -> None:
    truth, held = (run.truth((8, 8), run.of_split(split)) for split in ("discovery", "heldout"))
    neurons = Neurons.of(planted(truth, 0), 1)
    names = [[run.image_ids[i] for i in run.of_split(split)] for split in ("discovery", "heldout")]
    table = table_of_codes(neurons.codes(MID, names[0], planted(truth, 0), (8, 8)), truth, run.concepts)
    maps = evidence_maps(table, neurons.codes(MID, names[1], planted(held, 1), (8, 8)))
    assert miou(maps, held) > 0.6


def test_attention_is_divided_by_its_peak_on_the_finer_grid() -> None:
    maps = attention_scores(np.array([[[1.0], [4.0]]], np.float32), (1, 2), (2, 4))
    assert maps[0, :, 0].reshape(2, 4).tolist() == [[0.25, 0.25, 1.0, 1.0]] * 2
    assert not attention_scores(np.zeros((1, 2, 1), np.float32), (1, 2), (2, 4)).any()
    spot = np.zeros((1, 16, 1), np.float32)
    spot[0, 5] = 1.0  # one cell of the 4 x 4 that a finer layer has
    assert attention_scores(spot, (4, 4), (2, 2)).ravel().tolist() == [1.0, 0.0, 0.0, 0.0]


def test_every_baseline_is_wired_to_what_was_seen(run: LayoutRun, tmp_path: Path) -> None:
    """Activations and attention that hold the masks: each baseline beats the prior on other pictures."""
    groups = []
    for number, split in enumerate(("discovery", "heldout")):
        rows = run.of_split(split)
        names, truth = tuple(run.image_ids[i] for i in rows), run.truth((8, 8), rows)
        (tmp_path / split).mkdir()
        seen = PassRecord(names, tmp_path / split, grids={MID.block: (8, 8)}, attention_grid=(8, 8))
        seen.take(MID, slice(0, len(rows)), torch.from_numpy(planted(truth, number)))
        seen.attention[MID.t] = (truth.pixels / truth.areas).transpose(0, 2, 1).astype(np.float32)
        groups.append(Group(names, run.truth, rows, seen, stored=True))
    saes = {MID: SparseAutoencoder(SAEConfig(4, 16, 1, batch_topk=True))}
    step = StepEvaluation(run, saes, np.eye(2), LayoutEvaluationConfig(every_step=False, resamples=100), 0.5)
    step.fit(*groups[:1] * 2)
    assert (
        step.methods["neurons"].neurons[MID.block, "cond"][0].k == 1
    )  # what a cell has on average, not the four it may have
    found = step.measure(groups[1])
    for name in ("probe", "neurons", "attention", "directions"):
        assert found["miou"][name][1] > found["miou"]["prior"][2], name
        assert found["pointing"][name][0] > 0.9, name


def test_a_step_in_between_is_read_with_the_autoencoders_that_are_better_in_training(tmp_path: Path) -> None:
    pipe, saes = tiny_pipeline(), random_saes()
    painted = open_run(pipeline_run(tmp_path / "run", pipe, saes))
    rows = painted.of_split("discovery")
    pictures = [(painted.image_ids[i], painted.prompts[i], painted.seeds[i]) for i in rows]
    taken = set()
    # The nearest is t = 0, the middle one of the run's two is 1: as they are, then silent at 0 and others at 1.
    silent = {site: random_saes()[site] for site in saes if site.t == 0.0}
    for sae in silent.values():
        sae.encoder.data.zero_()
    others = {site: random_saes(seed=50)[site] for site in saes if site.t == 1.0}
    for t, those in ((0.3, saes), (0.2, saes | silent | others)):
        folder = tmp_path / f"{t}"
        folder.mkdir()
        seen = sampled(pipe, replace(GENERATION, steps=21), [t], pictures, painted.concepts, folder)
        group = Group(tuple(painted.image_ids[i] for i in rows), painted.truth, rows, seen, stored=True)
        step = StepEvaluation(painted, those, np.eye(3), LayoutEvaluationConfig(resamples=5), t)
        step.fit(group, group)
        reading, reached = Reading(step.step, group, training=True), {}
        for at in (0.0, 1.0):
            parts = [reading.evidence(place, at) for place in step.step.cond]
            inputs = inputs_of(parts, reading.prior, step.step.grid)
            where = LayoutFit.of(inputs, reading.truth).where
            ious = pair_ious(where.probabilities(inputs), reading.truth, where.thresholds)
            reached[at] = macro_mean(ious, np.ones((1, len(ious))))[0]
        assert step.autoencoder_t == max(reached, key=lambda at: reached[at]) and len(set(reached.values())) == 2
        found = dict(step.scores(group))
        other = {0.0: "gazetteer_shared", 1.0: "gazetteer_nearest"}[step.autoencoder_t]
        (same,) = {"gazetteer_shared", "gazetteer_nearest"} - {other}
        np.testing.assert_array_equal(found["gazetteer"].where, found[same].where)
        assert not np.array_equal(found["gazetteer"].where, found[other].where)
        taken.add(same)
    assert len(taken) == 2  # else the test could not tell a rule from a habit


# What is seen of a model


def test_what_is_seen_of_a_sampled_picture_is_its_own_half(tmp_path: Path) -> None:
    pipe, prompt = tiny_pipeline(), "a dog, two boats"
    seen = sampled(pipe, GUIDED, [1.0, 0.5], [("a", prompt, 3)], CONCEPTS, tmp_path)
    maps: dict[int, list[torch.Tensor]] = {}
    seen_updates: dict[tuple[str, int], torch.Tensor] = {}
    with (
        capture_attention(pipe, lambda _, call, one: maps.setdefault(call.step, []).append(one)),
        capture_updates(pipe, BLOCKS, lambda block, call, one: seen_updates.update({(block, call.step): one})),
    ):
        Generator(pipe, GUIDED).sample([prompt], [3], lambda *_: None, decode=False)
    places = token_places(pipe.tokenizer, prompt, ("boat", "boats"))
    assert places and set(seen.attention) == {1.0, 0.5}
    for t, step in zip((1.0, 0.5), sorted(maps), strict=False):
        halves = torch.stack(maps[step]).mean(dim=0)[..., places].sum(dim=2)  # uncond, cond
        np.testing.assert_allclose(seen.attention[t][0, :, CONCEPTS.index("boat")], halves[1], rtol=1e-5)
        assert not np.allclose(halves[0], halves[1], rtol=1e-2)
        assert not seen.attention[t][0, :, CONCEPTS.index("house")].any()  # not named
        for number, branch in enumerate(("uncond", "cond")):
            for block in BLOCKS:
                mine = cells(seen_updates[block, step])[number].to(torch.float16)
                np.testing.assert_array_equal(seen.updates[Site(block, branch, t)][0], mine)


def test_exact_pictures_are_noised_to_their_step(tmp_path: Path) -> None:
    """x = √ᾱ·latents + √(1 − ᾱ)·ε, by hand; at t = 0 next to nothing of ε is left."""
    pipe, prompt = tiny_pipeline(), "a dog"
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    seen = noised(pipe, GUIDED, [1.0, 0.0], [("a", prompt, image)], CONCEPTS, tmp_path, batch_size=8)
    pipe.scheduler.set_timesteps(GUIDED.steps)
    pixels = torch.from_numpy(image).float().permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        latents = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
        words = torch.cat(pipe.encode_prompt(prompt, "cpu", 1, True)[1::-1])
    made = {}
    for t in (1.0, 0.0):
        timestep = pipe.scheduler.timesteps[step_of(t, GUIDED.steps)]
        kept = pipe.scheduler.alphas_cumprod[timestep]
        random = torch.Generator("cpu").manual_seed(round(1000 * t))
        noise = torch.randn(latents.shape, generator=random)
        for name, x in (("noised", kept**0.5 * latents + (1 - kept) ** 0.5 * noise), ("clean", latents)):
            with (
                torch.inference_mode(),
                updates(pipe.unet, BLOCKS[1:], lambda _b, one, key=(t, name): made.update({key: cells(one)})),
            ):
                pipe.unet(torch.cat([x] * 2), timestep, words)
        for number, branch in enumerate(("uncond", "cond")):
            there = np.asarray(seen.updates[Site(BLOCKS[1], branch, t)][0], np.float32)
            np.testing.assert_allclose(there, made[t, "noised"][number], atol=2e-3)
            assert t == 0.0 or np.abs(there - made[t, "clean"][number].numpy()).max() > 0.02
    assert not np.allclose(made[1.0, "noised"], made[0.0, "noised"], atol=0.02)
    assert not np.allclose(seen.attention[1.0], seen.attention[0.0])
