"""SDXL and its one-step Turbo go the same way as Stable Diffusion: a small one with random weights, from disk."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler

from gazetteer.attribution.attacks.words import Attack
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case
from gazetteer.attribution.evaluation.evaluate import EditEvaluation, EvaluationConfig
from gazetteer.attribution.evaluation.evaluators import Evaluators, painter
from gazetteer.attribution.objective.prompts import without
from gazetteer.attribution.objective.trajectory import noised_images, trajectory
from gazetteer.attribution.protocols.pictures import paint_prompts, read_picture
from gazetteer.attribution.protocols.prompts import ProtocolPrompt
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.data.inputs.regions import Region
from gazetteer.diffusion.blocks import Block, blocks_of
from gazetteer.diffusion.capture import capture_updates, cells, updates
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.diffusion.noised import encoded, noised_updates
from gazetteer.diffusion.steer import steer
from gazetteer.jobs.experiments.attribute_report import print_evaluation
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.sdxl import SMALL, tiny_sdxl

BLOCKS = ("down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.0.attentions.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sdxl")
    tiny_sdxl(SMALL, EulerAncestralDiscreteScheduler(timestep_spacing="trailing")).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("steps", "guidance", "branches"), [(1, 0.0, ("cond",)), (4, 0.0, ("cond",)), (3, 5.0, ("cond", "uncond"))],
    ids=["turbo", "four steps", "guided"],
)  # fmt: skip
def test_pictures_and_codes(folder: Path, steps: int, guidance: float, branches: tuple[str, ...]) -> None:
    t = (1.0,) if steps == 1 else (1.0, 0.0)
    config = GenerationConfig(steps=steps, guidance=guidance, blocks=BLOCKS, branches=branches, t=t)
    made = Generator(load_pipeline(ModelConfig(path=str(folder))), config)
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1) for site in config.sites}
    prompts, seeds = ["a red house", "a dog at night"], [5, 6]
    together = made.pictures(prompts, seeds, saes)
    assert together[0].image.shape == (16, 16, 3)
    assert set(together[0].codes) == set(config.sites)
    assert {(code.height, code.width) for code in together[0].codes.values()} == {(4, 4)}
    alone = made.pictures(prompts[1:], seeds[1:], saes)[0]
    assert np.array_equal(alone.image, together[1].image)
    site = Site(BLOCKS[1], "cond", 1.0)
    assert np.array_equal(alone.codes[site].feature, together[1].codes[site].feature)
    assert not np.array_equal(together[0].image, together[1].image)


@torch.no_grad()
def test_a_given_picture_is_seen_with_pooled_text_and_size(folder: Path) -> None:
    pipe = load_pipeline(ModelConfig(path=str(folder)))
    made = Generator(pipe, GenerationConfig(steps=3, guidance=5.0, blocks=BLOCKS, t=(1.0, 0.5, 0.0)))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found: dict[Site, torch.Tensor] = {}
    noised_updates(made, [image], ["a red house"], [5], lambda site, x, *_: found.update({site: x}))
    words, no_words, pooled, no_pooled = pipe.encode_prompt("a red house")
    if pipe.config.force_zeros_for_empty_prompt:  # without a negative prompt
        no_words, no_pooled = torch.zeros_like(words), torch.zeros_like(pooled)
    added = {
        "text_embeds": torch.cat([no_pooled, pooled]), "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(2, 6)
    }  # fmt: skip
    clean = encoded(made, image)
    for number, t in enumerate(made.config.t):
        pipe.scheduler.set_timesteps(3)
        timestep, sigma = pipe.scheduler.timesteps[number], pipe.scheduler.sigmas[number]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5 * 1_000_003 + number))
        noisy = (clean + sigma * noise) / (sigma**2 + 1) ** 0.5
        seen: dict[str, torch.Tensor] = {}
        with updates(pipe.unet, BLOCKS, lambda block, update, seen=seen: seen.update({block: cells(update)})):
            told = torch.cat([no_words, words])
            pipe.unet(torch.cat([noisy] * 2), timestep, told, added_cond_kwargs=added)
        for block, (uncond, cond) in seen.items():
            for branch, expected in (("uncond", uncond), ("cond", cond)):
                torch.testing.assert_close(found[Site(block, branch, t)][0], expected, rtol=1e-3, atol=1e-4)


def test_edits_act_on_their_picture_their_place_and_their_half(folder: Path) -> None:
    pipe = load_pipeline(ModelConfig(path=str(folder)))
    site = Site(BLOCKS[1], "cond", 1.0)
    saes = {site: SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1).requires_grad_(False)}

    def drawn(*edits: Edit, guidance: float = 5.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of two pictures, and the middle block's updates [steps, batch, cells, d]."""
        seen: list[torch.Tensor] = []
        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        with steer(pipe, edits, saes), capture_updates(pipe, BLOCKS[1:2], lambda *a: seen.append(cells(a[2]))):
            latents = pipe(
                prompt=["a red house", "a dog at night"], latents=noise, num_inference_steps=3, output_type="latent",
                guidance_scale=guidance, generator=torch.Generator().manual_seed(2), height=16, width=16,
            ).images  # fmt: skip
        return latents, torch.stack(seen)

    target = Target(BLOCKS[1], "cond", 1.0, features=(3, 9))
    left = Edit(
        targets=(target,), region=Region(box=(0.0, 0.0, 0.5, 1.0)), outside="keep", images=(1,), unit="absolute"
    )
    (plain, before), (same, _), (made, after) = drawn(), drawn(replace(left, strength=0.0)), drawn(left)
    assert torch.equal(same, plain) and torch.equal(made[0], plain[0]) and not torch.equal(made[1], plain[1])
    # Of the first step: two uncond, then two cond inputs, of which the last is edited in its left half.
    change = (after - before)[0].unflatten(1, (4, 4))
    assert not change[:3].any() and not change[3, :, 2:].any()
    added = saes[site].decoder[[3, 9]].sum(dim=0).expand(4, 2, 32)
    torch.testing.assert_close(change[3, :, :2], added, rtol=1e-4, atol=1e-4)
    alone = drawn(left, guidance=0.0)[1][0] - drawn(guidance=0.0)[1][0]
    assert len(alone) == 2 and not alone[0].any() and alone[1].any()


def test_blocks_are_found_without_weights(folder: Path) -> None:
    there = {one.block: one for one in blocks_of(ModelConfig(path=str(folder)))}
    assert all(there[block] == Block(block, 4, 4, 32) for block in BLOCKS)


def test_the_noise_of_an_ancestral_sampler_belongs_to_the_seed(folder: Path, tmp_path: Path) -> None:
    pipe = load_pipeline(ModelConfig(path=str(folder)))
    prompts, seeds = ["a red house", "a dog at night"], [5, 6]
    together = trajectory(pipe, prompts, seeds, steps=3)
    again, alone = trajectory(pipe, prompts, seeds, steps=3), trajectory(pipe, prompts[1:], seeds[1:], steps=3)
    assert torch.equal(together.x, again.x)
    torch.testing.assert_close(together.x[1::2], alone.x, rtol=0, atol=0.01)  # batches round differently
    items = [ProtocolPrompt(prompt, seed, guidance=5.0) for prompt, seed in zip(prompts, seeds, strict=True)]
    both = paint_prompts(pipe, items, tmp_path / "both", steps=3)
    one = paint_prompts(pipe, items[1:], tmp_path / "one", steps=3)
    pictures = [read_picture(path).astype(int) for path in (both[1], one[0])]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_noised_pictures_are_scaled_as_the_sampler_scales_them(folder: Path) -> None:
    """Euler's x is latents + σ ε, and its U-Net sees x / √(σ² + 1)."""
    pipe = load_pipeline(ModelConfig(path=str(folder)))
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, prediction_type="epsilon")
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    found = noised_images(pipe, latents, ["a dog", "a house"], steps=4, only=[0, 2], seed=3)
    assert found.target is not None
    for part, step in enumerate((0, 2)):
        rows = slice(2 * part, 2 * part + 2)
        sigma = float(pipe.scheduler.sigmas[step])
        by_hand = (latents + sigma * found.target[rows]) / (sigma**2 + 1) ** 0.5
        torch.testing.assert_close(found.x[rows], by_hand)
        assert found.timestep[rows].tolist() == [float(pipe.scheduler.timesteps[step])] * 2


def test_an_evaluation_goes_on_where_words_cannot_be_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = load_pipeline(ModelConfig(path=str(folder)))
    prompts = ["a dog and a house", "a house", "a dog at night", "a house at night"]
    cases = [
        Case(p, i, frozenset(c for c in ("dog", "house") if c in p), CHOOSE if i < 2 else REPORT)
        for i, p in enumerate(prompts)
    ]
    config = MethodConfig(steps=2, context=1, context_steps=1, tune_steps=1)
    methods = Methods(pipe, config, ["dog", "house"], {c.prompt: c.named for c in cases if c.half == CHOOSE}, without)
    protocol = EvaluationConfig(
        ("steps", "cad"), (), fractions=(0.05,), most=1, attacked=("steps",), attack=Attack(1, 1, 1)
    )
    evaluation = EditEvaluation(
        methods,
        Evaluators(painter(pipe, GenerationConfig(steps=2)), lambda images: [{"dog": 0.5}] * len(images)),
        cases,
        protocol,
    )
    found = evaluation.run("erase", ["dog"])
    assert set(found) == {"steps", "cad"} and "one text encoder" in found["steps"]["attacked"]["skipped"]
    print_evaluation({"faithfulness_rows": [], "erase": found})
    assert re.search("attacked +skipped: ", capsys.readouterr().out)
