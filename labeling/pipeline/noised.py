"""A given picture as the denoiser sees it at every t: encoded, noised to it, and passed through in one call.

The pipeline itself is called, with the picture's caption, for the wanted timesteps alone: where its sampler would scale
what the denoiser reads, and where it would take a step, the noised picture of the present or the next t is handed on.
Whatever the pipeline tells its denoiser beside latents and caption is told here as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.diffusion.capture import capture, cells, split_branches
from gazetteer.diffusion.draw import tokens_cut
from gazetteer.diffusion.generate import Generator, OnSite, Picture
from gazetteer.diffusion.watch import Call, patched
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.maps import EncodedMaps, encode_maps


@torch.inference_mode()
def noised_pictures(
    generator: Generator, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str], seeds: Sequence[int],
    saes: Mapping[Site, SparseAutoencoder], watch: OnSite | None = None,
) -> list[Picture]:  # fmt: skip
    """Pictures uint8 [H, W, 3] with their codes at every site of `generator`; one a call where it is exact.

    Args:
        prompts: the captions, or empty prompts.
        seeds: of the noise; every t draws its own, on the CPU.
        watch: called with every site's activations.

    Raises:
        GazetteerError: out of memory with a single picture.
        InputError: the model's latents are not of the kind its denoiser reads, or a site was not heard.
        ValueError: an activation is not finite.
    """

    def made(part: slice) -> list[Picture]:
        encoded_maps: dict[Site, EncodedMaps] = {}

        def on_site(site: Site, x: Tensor, height: int, width: int) -> None:
            encoded_maps[site] = encode_maps(saes[site], x, height, width)
            if watch is not None:
                watch(site, x, height, width)

        noised_updates(generator, images[part], prompts[part], seeds[part], on_site)
        cut = tokens_cut(generator.pipe, prompts[part])
        pictures = [Picture(image, {}, tokens) for image, tokens in zip(images[part], cut, strict=True)]
        for site, maps in encoded_maps.items():
            for picture, code in zip(pictures, maps.fetched(), strict=True):
                picture.codes[site] = code
        return pictures

    return list(chain.from_iterable(generator.fitting.over(len(images), made)))


def encoded(generator: Generator, image: NDArray[np.uint8]) -> Tensor:
    """The latents [1, channels, h, w] of a picture, as the denoiser was trained on them: the mode of the posterior.

    Raises:
        InputError: the model has no autoencoder for pictures, or its latents are no [channels, h, w] of the denoiser.
    """
    pipe = generator.pipe
    if not hasattr(pipe, "unet"):
        raise InputError(
            f"Given pictures are noised for U-Nets only so far, and {type(pipe).__name__} has a transformer; "
            "let it generate its pictures."
        )
    vae = getattr(pipe, "vae", None)
    if vae is None or not hasattr(vae.config, "scaling_factor"):
        raise InputError(f"{type(pipe).__name__} has no autoencoder that given pictures could be encoded with.")
    pixels = torch.from_numpy(np.array(image)).to(vae.device, vae.dtype).permute(2, 0, 1)[None]
    latents: Tensor = vae.encode(pixels / 127.5 - 1.0).latent_dist.mode()
    latents = (latents - (getattr(vae.config, "shift_factor", None) or 0.0)) * vae.config.scaling_factor
    wanted = tuple(generator.noise(0).shape)
    if tuple(latents.shape) != wanted:
        raise InputError(
            f"{type(pipe).__name__} makes latents of {list(latents.shape[1:])} from a picture, but draws from "
            f"{list(wanted[1:])}; given pictures are not supported with it."
        )
    return latents


def noised_updates(
    generator: Generator, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str], seeds: Sequence[int],
    on_site: OnSite,
) -> None:  # fmt: skip
    """Hand every site's updates of a batch of noised pictures to `on_site`; all else as `noised_pictures`."""
    pipe, config, schedule = generator.pipe, generator.config, generator.schedule
    clean = torch.cat([encoded(generator, image) for image in images])
    places = sorted({schedule.place(site.t) for site in config.sites})
    pipe.scheduler.set_timesteps(config.steps)
    moments = [_Moment(pipe.scheduler, place, clean, seeds) for place in places]
    heard: set[Site] = set()
    at = [0]

    def on_signal(port: Port, call: Call, values: Tensor) -> None:
        halves = split_branches(values, len(images), call.branches)
        for site in config.sites:
            if site.port == port and schedule.place(site.t) == places[at[0]] and site.branch in halves:
                heard.add(site)
                on_site(site, cells(halves[site.branch]), values.shape[2], values.shape[3])

    def set_timesteps(usual: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        usual(*args, **kwargs)
        pipe.scheduler.timesteps = pipe.scheduler.timesteps[places]

    def scale(usual: Callable[..., Any], sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return moments[at[0]].read(sample)

    def step(usual: Callable[..., Any], output: Any, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        at[0] = min(at[0] + 1, len(places) - 1)
        return (moments[at[0]].noisy.to(sample),)

    # Pipelines scale their noise before the first call; what they are given is what comes out of that.
    start = moments[0].noisy / float(pipe.scheduler.init_noise_sigma)
    with ExitStack() as stack:
        for name, around in (("set_timesteps", set_timesteps), ("scale_model_input", scale), ("step", step)):
            stack.enter_context(patched(pipe.scheduler, name, around))
        stack.enter_context(capture(pipe, generator.ports, on_signal, schedule=schedule))
        pipe(latents=start, output_type="latent", **generator.arguments(prompts))
    missing = sorted(set(config.sites) - heard)
    if missing:
        raise InputError(f"{type(pipe).__name__} ended before {missing[0].slug} was heard on a given picture.")


class _Moment:
    """Given pictures at one call of the sampler: noised to it, and scaled as its denoiser reads them.

    Attributes:
        noisy: [pictures, channels, h, w].
    """

    def __init__(self, scheduler: Any, place: int, clean: Tensor, seeds: Sequence[int]) -> None:
        self._own = copy.deepcopy(scheduler)  # samplers that scale by σ remember where they are
        if hasattr(self._own, "set_begin_index"):  # several steps may share a timestep
            self._own.set_begin_index(place)
        self._timestep = self._own.timesteps[place]
        random = [torch.Generator("cpu").manual_seed((seed * 1_000_003 + place) % 2**63) for seed in seeds]
        noise = torch.cat([torch.randn(clean[:1].shape, generator=own) for own in random]).to(clean)
        times = self._timestep[None].to(clean.device)
        if hasattr(self._own, "add_noise"):
            self.noisy: Tensor = self._own.add_noise(clean, noise, times)
        elif hasattr(self._own, "scale_noise"):
            self.noisy = self._own.scale_noise(clean, times, noise)
        else:
            raise InputError(f"The sampler {type(scheduler).__name__} cannot noise a given picture.")

    def read(self, sample: Tensor) -> Tensor:
        """What the denoiser is given of `sample` here."""
        scaled: Tensor = self._own.scale_model_input(sample, self._timestep)
        return scaled
