"""Pictures with exact masks pass once through any denoiser: what is kept is what its own blocks show of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.labeling.layout.evaluation.config import LayoutEvaluationConfig
from gazetteer.labeling.layout.evaluation.evaluate import evaluate_layout
from gazetteer.labeling.layout.evaluation.exact import exact_group
from gazetteer.labeling.layout.evaluation.model_pass import PassRecord, noised
from gazetteer.labeling.layout.run import open_run
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.dits import tiny_dit
from tests.support.runs.layout_runs import CONCEPTS, pipeline_run

BLOCK, PROMPT = "transformer_blocks.0", "a dog, two boats"
GENERATION = GenerationConfig(
    steps=4, guidance=3.0, blocks=(BLOCK,), streams=("image", "text"), signals=("update", "output", "input"),
    branches=("cond",), t=(1.0, 0.5, 0.0),
)  # fmt: skip
SIDE = 32


def picture(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def shown(pipe: Any, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture's tokens (uncond, cond) before and after the block, called by hand: x = (1 - σ) latents + σ ε."""
    pipe.scheduler.set_timesteps(GENERATION.steps)
    step = round((1 - t) * (GENERATION.steps - 1) + 1e-6)
    sigma, timestep = pipe.scheduler.sigmas[step], pipe.scheduler.timesteps[step]
    pixels = torch.from_numpy(picture()).float().permute(2, 0, 1)[None] / 127.5 - 1
    latents = (pipe.vae.encode(pixels).latent_dist.mode() - 0.1) * pipe.vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(round(1000 * t)))
    words, no_words, pooled, no_pooled = pipe.encode_prompt(PROMPT, PROMPT, PROMPT)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    block = pipe.transformer.get_submodule(BLOCK)
    handle = block.register_forward_hook(
        lambda _, args, kwargs, output: seen.append((kwargs["hidden_states"], output[1])), with_kwargs=True
    )
    pipe.transformer(
        torch.cat([(1 - sigma) * latents + sigma * noise] * 2), torch.cat([no_words, words]),
        torch.cat([no_pooled, pooled]), timestep.expand(2),
    )  # fmt: skip
    handle.remove()
    return seen[0]


@torch.no_grad()
def test_a_transformer_shows_of_exact_pictures_what_a_plain_call_does(tmp_path: Path) -> None:
    pipe, both = tiny_dit("sd3"), replace(GENERATION, streams=("image",), branches=("cond", "uncond"))
    (tmp_path / "words").mkdir()
    read = noised(pipe, GENERATION, (0.5,), [("a", PROMPT, picture())], CONCEPTS, tmp_path / "words", batch_size=8)
    assert read.updates and {site.stream for site in read.updates} == {"image"}  # words have no cells
    seen = noised(pipe, both, both.t, [("a", PROMPT, picture())], CONCEPTS, tmp_path, batch_size=8)
    assert set(seen.updates) == set(both.sites)
    assert not seen.attention and set(seen.grids.values()) == {(8, 8)}
    for t in GENERATION.t:
        before, after = shown(pipe, t)
        for signal, expected in (("input", before), ("output", after), ("update", after - before)):
            for number, branch in enumerate(("uncond", "cond")):
                kept = np.asarray(seen.updates[Site(BLOCK, branch, t, signal=signal)][0], np.float32)
                np.testing.assert_allclose(kept, expected[number].numpy(), rtol=2e-3, atol=2e-3)
        assert not torch.allclose(*(after - before), atol=0.01)  # the branches are told apart
    assert not np.allclose(*(seen.updates[Site(BLOCK, "cond", t, signal="input")] for t in (1.0, 0.0)), atol=0.1)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -2e5])
def test_an_activation_that_cannot_be_kept_is_refused_and_not_cut(tmp_path: Path, value: float) -> None:
    record, update = PassRecord(("a",), tmp_path), torch.zeros(1, 4, 3)
    site = Site(BLOCK, "cond", 0.5)
    record.take(site, slice(0, 1), update + 65504.0)
    update[0, 2, 1] = value
    with pytest.raises(InputError, match=f"{BLOCK}.* is not finite, or larger than float16 holds"):
        record.take(site, slice(0, 1), update)


def test_exact_pictures_pass_in_batches_where_they_need_not_be_alone(tmp_path: Path) -> None:
    pipe, calls = tiny_dit("sd3"), list[int]()
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    config = replace(GENERATION, streams=("image",), branches=("cond",), t=(1.0, 0.0))
    many = [(name, PROMPT, np.roll(picture(), number, 0)) for number, name in enumerate("abc")]
    seen = []
    for exact, wanted in ((True, [2] * 6), (False, [4, 4, 2, 2])):  # both halves of guidance in a call
        (folder := tmp_path / str(exact)).mkdir()
        seen.append(noised(pipe, replace(config, exact=exact), config.t, many, CONCEPTS, folder, batch_size=2))
        assert calls == wanted
        calls.clear()
    for site, update in seen[0].updates.items():
        np.testing.assert_allclose(update, seen[1].updates[site], rtol=2e-3, atol=2e-3)


def test_pictures_of_another_size_are_scaled_and_words_alone_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe, config = tiny_dit("sd3"), replace(GENERATION, signals=("update",), branches=("cond",))
    large = np.kron(picture(), np.ones((2, 2, 1), np.uint8))
    (tmp_path / "large").mkdir()
    with caplog.at_level(logging.WARNING):
        seen = noised(pipe, config, [0.5], [("a", PROMPT, large)], CONCEPTS, tmp_path / "large", batch_size=8)
    assert "1 pictures with masks are scaled to the model's 32 x 32 px" in caplog.text
    assert seen.updates[Site(BLOCK, "cond", 0.5)].shape == (1, 64, 16)
    with pytest.raises(InputError, match="say nothing of words"):
        noised(
            pipe, replace(config, streams=("text",)), [0.5], [("a", PROMPT, large)], CONCEPTS, tmp_path, batch_size=8
        )


def test_the_layout_of_a_transformer_is_measured_without_attention(tmp_path: Path) -> None:
    pipe = tiny_dit("sd3")
    config = replace(GENERATION, signals=("output",), streams=("image",), branches=("cond",), t=(1.0, 0.0))
    saes = {site: SparseAutoencoder(SAEConfig(16, 48, 4)).initialise(n).eval() for n, site in enumerate(config.sites)}
    run = open_run(pipeline_run(tmp_path / "run", pipe, saes, generation=config))
    exact = exact_group(run, run.store.path, config, 8, most=3)
    told = LayoutEvaluationConfig(resamples=20, batch_size=4)
    result = evaluate_layout(run, saes, np.eye(3), replace(told, every_step=False), pipe, config, exact)
    assert result["images"]["train_sampled"] == result["images"]["train"] > 0
    without = replace(told, every_step=False, baselines=False, train_images=2)
    assert evaluate_layout(run, saes, np.eye(3), without, None, None)["images"]["train_sampled"] == 0
    assert result["images"]["exact"] == 3 and set(result["exact"]) == {"1.00", "0.00"}
    for measured in (result, *result["exact"].values()):
        methods = measured["miou"] if "gazetteer" in measured["miou"] else measured["miou"]["1.00"]
        assert {"gazetteer", "directions", "probe", "neurons"} <= set(methods) and "attention" not in methods
    assert "no cross-attention layers" in result["left_out"]["attention"]
