"""A given picture as the denoiser sees it: the same updates as a bare call on the scheduler's own noising."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.capture import cells, split_branches, updates
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.denoisers.transformer import pack
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.noised import encoded, noised_updates
from gazetteer.diffusion.watch import patched
from tests.support.models.dits import FAMILIES, tiny_dit
from tests.support.models.sdxl import SMALL, tiny_sdxl
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
    image = np.zeros((8, 16, 3), np.uint8)
    with pytest.raises(InputError, match="of 8 x 16 px is given to a model that draws 16 x 16"):
        seen(3)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_transformer_reads_the_picture_noised_to_each_step(family: str) -> None:
    """(1 - σ) x + σ ε of flow matching, √ᾱ x + √(1 - ᾱ) ε of the others, as the network itself is called with it."""
    pipe = tiny_dit(family)
    block = list(adapter_of(pipe).blocks(pipe.transformer))[-1]
    config = GenerationConfig(
        steps=5, guidance=3.0, blocks=(block,), branches=("cond",), t=(1.0, 0.5, 0.0), height=32, width=64
    )
    generator, read = Generator(pipe, config), []
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)

    def keep(_: object, args: tuple, kwargs: dict) -> None:
        latents = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        read.append(latents[0][:, 0] if isinstance(latents, list) else latents[0].clone())

    found: dict = {}
    handle = pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    noised_updates(generator, [image], ["a red house"], [5], lambda site, x, h, w: found.update({site: (x, h, w)}))
    handle.remove()
    assert set(found) == set(config.sites) and hooks_of(pipe.transformer) == 0
    assert {x.shape[1] for x, *_ in found.values()} == {h * w for _, h, w in found.values()}
    assert len({(h, w) for _, h, w in found.values()} | {(1, 1)}) == 2 and all(w == 2 * h for _, h, w in found.values())
    clean, calls = encoded(generator, image), len(read) // 3
    for number, t in enumerate(config.t):
        place = generator.schedule.place(t)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5 * 1_000_003 + place))
        if family in ("pixart_sigma", "hunyuan"):
            kept = pipe.scheduler.alphas_cumprod[int(generator.schedule.timesteps[place])]
            noisy = kept**0.5 * clean + (1 - kept) ** 0.5 * noise
        else:
            sigma = generator.schedule.timesteps[place] / 1000
            noisy = (1 - sigma) * clean + sigma * noise
        expected = pack(noisy) if family in ("flux", "chroma", "flux2", "flux2_klein", "qwen_image") else noisy
        for call in read[number * calls : (number + 1) * calls]:
            torch.testing.assert_close(call, expected[0], rtol=1e-4, atol=1e-4)


def test_latents_are_what_the_pipelines_decode_again() -> None:
    """FLUX.2 normalises patches and Qwen-Image channels; both undo it as their own pipelines are written."""
    pixels = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    flux, qwen, sana = (tiny_dit(family) for family in ("flux2_klein", "qwen_image", "sana"))
    flux.vae.bn.running_mean.normal_()
    flux.vae.bn.running_var.uniform_(0.5, 2.0)
    expected = flux._unpatchify_latents(flux._encode_vae_image(pixels, None))
    torch.testing.assert_close(adapter_of(flux).encoded(flux.vae, pixels), expected)
    mean, deviation = [0.1, 0.2, -0.3, 0.4], [0.5, 1.0, 2.0, 4.0]
    qwen.vae.register_to_config(latents_mean=mean, latents_std=deviation)
    latents = adapter_of(qwen).encoded(qwen.vae, pixels)
    again = latents * torch.tensor(deviation).view(1, 4, 1, 1) + torch.tensor(mean).view(1, 4, 1, 1)
    torch.testing.assert_close(again[:, :, None], qwen.vae.encode(pixels[:, :, None]).latent_dist.mode())
    found = adapter_of(sana).encoded(sana.vae, pixels) / sana.vae.config.scaling_factor
    torch.testing.assert_close(found, sana.vae.encode(pixels).latent)


def test_sdxl_decodes_again_what_a_vae_of_channels_own_means_encoded() -> None:
    """As Playground v2.5's states them."""
    pipe, given = tiny_sdxl(SMALL), list[torch.Tensor]()
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.register_to_config(
        latents_mean=[-1.6, 1.9, -1.4, 2.5], latents_std=[8.5, 5.9, 6.5, 5.2], scaling_factor=0.5
    )
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents, decode = adapter_of(pipe).encoded(pipe.vae, pixels), pipe.vae.decode
    pipe.vae.decode = lambda z, **how: given.append(z) or decode(z, **how)
    with patched(pipe.scheduler, "step", lambda *_, **__: (latents,)):
        pipe("a red house", num_inference_steps=1, guidance_scale=1.0)
    torch.testing.assert_close(given, [pipe.vae.encode(pixels).latent_dist.mode()], rtol=1e-4, atol=1e-4)


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
