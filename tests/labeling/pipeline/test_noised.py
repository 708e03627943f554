"""A given picture as the denoiser sees it: the same updates as a bare call on the scheduler's own noising."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.capture import cells, split_branches, updates
from gazetteer.diffusion.generate import Generator
from gazetteer.labeling.pipeline.noised import encoded, noised_updates
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.layout_runs import GENERATION, hooks_of

CONFIG = replace(GENERATION, t=(1.0, 0.5, 0.0))


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_updates_are_those_of_one_call_on_the_noised_picture(kind: type) -> None:
    pipe = tiny_pipeline()
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    generator = Generator(pipe, CONFIG)
    image = np.random.default_rng(0).integers(0, 256, (*generator.picture_size, 3), dtype=np.uint8)
    found: dict = {}
    noised_updates(generator, [image], ["a red house"], [5], lambda site, x, h, w: found.setdefault(site, x.clone()))
    assert set(found) == set(CONFIG.sites) and hooks_of(pipe.unet) == 0
    clean = encoded(generator, image)
    cond, uncond = pipe.encode_prompt("a red house", "cpu", 1, True)[:2]
    for t in CONFIG.t:
        place = generator.schedule.place(t)
        scheduler = kind.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(CONFIG.steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(place)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5 * 1_000_003 + place))
        timestep = scheduler.timesteps[place]
        noisy = scheduler.scale_model_input(scheduler.add_noise(clean, noise, timestep[None]), timestep)
        seen: dict = {}
        with torch.no_grad(), updates(pipe.unet, BLOCKS, lambda block, update, seen=seen: seen.update({block: update})):
            pipe.unet(torch.cat([noisy] * 2), timestep, torch.cat([uncond, cond]))
        for site in (one for one in CONFIG.sites if one.t == t):
            half = split_branches(seen[site.block], 1)[site.branch]
            torch.testing.assert_close(found[site], cells(half), rtol=1e-4, atol=1e-5)


def test_noise_belongs_to_the_seed_and_a_model_without_autoencoder_says_so() -> None:
    generator = Generator(tiny_pipeline(), replace(GENERATION, t=(0.5,)))
    image = np.zeros((*generator.picture_size, 3), np.uint8)

    def seen(seed: int, prompt: str = "") -> torch.Tensor:
        found: list[torch.Tensor] = []
        noised_updates(generator, [image], [prompt], [seed], lambda site, x, h, w: found.append(x))
        return torch.cat([one.flatten() for one in found])

    assert torch.equal(seen(3), seen(3)) and not torch.allclose(seen(3), seen(4))
    assert not torch.allclose(seen(3), seen(3, "a dog"))  # the caption is told
    generator.pipe.vae = None
    with pytest.raises(InputError, match="no autoencoder that given pictures"):
        seen(3)


def test_a_batch_gives_each_picture_what_it_gets_alone() -> None:
    generator = Generator(tiny_pipeline(), CONFIG)
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (*generator.picture_size, 3), dtype=np.uint8) for _ in range(3)]
    prompts, seeds = ["a red house", "", "a dog"], [7, 8, 9]
    found: dict = {}
    noised_updates(generator, images, prompts, seeds, lambda site, x, h, w: found.update({site: x.clone()}))
    for number, one in enumerate(zip(images, prompts, seeds, strict=True)):
        alone: dict = {}
        noised_updates(
            generator, *([value] for value in one), lambda site, x, h, w, to=alone: to.update({site: x.clone()})
        )
        for site, x in alone.items():
            torch.testing.assert_close(found[site][number : number + 1], x, rtol=1e-4, atol=1e-5)
