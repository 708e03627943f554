"""A given picture as the denoiser sees it at every t: encoded, noised to it, and passed through in one call.

The pipeline itself is called, with the picture's caption, for the wanted timesteps alone: where its sampler would scale
what the denoiser reads, and where it would take a step, the noised picture of the present or the next t is handed on.
Whatever the pipeline tells its denoiser beside latents and caption is told here as well. What is noise and what is
picture at a t is the sampler's own: √ᾱ x + √(1 − ᾱ) ε, x + σ ε, or of flow matching (1 − σ) x + σ ε.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.diffusion.capture import capture, cells
from gazetteer.diffusion.denoisers.registry import device_of
from gazetteer.diffusion.draw import tokens_cut
from gazetteer.diffusion.generate import BatchCodes, Generator, OnSite, Picture
from gazetteer.diffusion.watch import Call, patched
from gazetteer.sae.model.autoencoder import SparseAutoencoder

NoiseSeed = Callable[[int, int], int]
"""From a picture's seed and the place of a call among the sampler's to the seed that its noise is drawn with."""


def by_place(seed: int, place: int) -> int:
    """The usual one: every call has noise of its own."""
    return (seed * 1_000_003 + place) % 2**63


@torch.inference_mode()
def noised_pictures(
    generator: Generator, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str], seeds: Sequence[int],
    saes: Mapping[Site, SparseAutoencoder], watch: OnSite | None = None,
) -> list[Picture]:  # fmt: skip
    """Pictures uint8 [H, W, 3] with their codes at every site of `generator`; one a call where it is exact.

    Args:
        prompts: the captions, or empty prompts.
        seeds: of the noise; every t draws its own, on the CPU.
        watch: called with every site's activations, as by `Generator.pictures`.

    Raises:
        GazetteerError: out of memory with a single picture.
        InputError: the model's latents are not of the kind its denoiser reads, or a site was not heard.
        ValueError: an activation is not finite.
    """

    def made(part: slice) -> list[Picture]:
        heard = BatchCodes([generator.tokens(prompt) for prompt in prompts[part]], saes, watch)
        noised_updates(generator, images[part], prompts[part], seeds[part], heard.on_site)
        rows = zip(images[part], heard.codes(), tokens_cut(generator.pipe, prompts[part]), heard.texts, strict=True)
        return [Picture(image, codes, cut, tokens=words) for image, codes, cut, words in rows]

    return list(chain.from_iterable(generator.fitting.over(len(images), made)))


def encoded(generator: Generator, image: NDArray[np.uint8]) -> Tensor:
    """The latents [1, channels, h, w] of a picture, as the denoiser was trained on them: the mode of the posterior.

    Raises:
        InputError: a picture of another size than the model's, or a model that has no autoencoder for pictures, or one
            whose latents are no [channels, h, w] of the denoiser.
    """
    pipe, (height, width) = generator.pipe, generator.picture_size
    if image.shape[:2] != (height, width):
        raise InputError(
            f"A picture of {image.shape[0]} x {image.shape[1]} px is given to a model that draws {height} x {width}; "
            "cut or scale it to that size."
        )
    vae: Any = getattr(pipe, "vae", None)
    if not hasattr(vae, "encode"):
        raise InputError(f"{type(pipe).__name__} has no autoencoder that given pictures could be encoded with.")
    pixels = torch.from_numpy(np.array(image)).to(device_of(pipe), vae.dtype).permute(2, 0, 1)[None]
    try:
        latents = generator.adapter.encoded(vae, pixels / 127.5 - 1.0)
    except AttributeError as error:
        raise InputError(f"Given pictures cannot be encoded with the {type(vae).__name__} here ({error}).") from error
    wanted = tuple(generator.noise(0).shape)
    if tuple(latents.shape) != wanted:
        raise InputError(
            f"{type(pipe).__name__} makes latents of {list(latents.shape[1:])} from a picture, but draws from "
            f"{list(wanted[1:])}; given pictures are not supported with it."
        )
    return latents


@torch.inference_mode()
def noised_updates(
    generator: Generator, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str], seeds: Sequence[int],
    on_site: OnSite, noise_seed: NoiseSeed = by_place, within: AbstractContextManager[Any] | None = None,
) -> None:  # fmt: skip
    """Hand what every site hears of a batch of noised pictures to `on_site`; all else as `noised_pictures`.

    within: entered for the calls: whatever else is to be heard of them. To it (`gazetteer.diffusion.watch.Call.place`)
        the wanted calls are the only ones there are, in the order of the sampler's.
    """
    config, schedule = generator.config, generator.schedule
    clean = torch.cat([encoded(generator, image) for image in images])
    places = sorted({schedule.place(site.t) for site in config.sites})
    generator.set_timesteps()
    states = [
        Noised(generator.pipe.scheduler, place, clean, _noise(clean, seeds, place, noise_seed)) for place in places
    ]
    heard: set[Site] = set()

    def on_signal(port: Port, call: Call, values: Tensor) -> None:
        halves = generator.split(values, len(images), call.branches)
        for site in config.sites:
            if site.port == port and schedule.place(site.t) == places[visit[0]] and site.branch in halves:
                heard.add(site)
                on_site(site, cells(halves[site.branch]), values.shape[2], values.shape[3])

    given = [generator.adapter.stepped(generator.pipe, state.noisy) for state in states]
    # Pipelines scale their noise before the first call; what they are given is what comes out of that.
    start = generator.latents([states[0].noisy / initial_scale(generator)])
    with visiting(generator, places, states, given) as visit, ExitStack() as stack:
        if within is not None:
            stack.enter_context(within)
        stack.enter_context(capture(generator.pipe, generator.ports, on_signal))
        generator.pipe(latents=start, output_type="latent", **generator.arguments(prompts))
    missing = sorted(set(config.sites) - heard)
    if missing:
        name = type(generator.pipe).__name__
        raise InputError(f"{name} ended before {missing[0].slug} was heard on a given picture.")


def initial_scale(generator: Generator) -> float:
    """What the pipeline multiplies its starting noise by."""
    return float(getattr(generator.pipe.scheduler, "init_noise_sigma", 1.0))


def _noise(clean: Tensor, seeds: Sequence[int], place: int, noise_seed: NoiseSeed) -> Tensor:
    random = [torch.Generator("cpu").manual_seed(noise_seed(seed, place)) for seed in seeds]
    return torch.cat([torch.randn(clean[:1].shape, generator=own) for own in random]).to(clean)


@contextmanager
def visiting(
    generator: Generator, places: Sequence[int], states: Sequence[Noised], given: Sequence[Tensor],
    on_output: Callable[[int, Tensor], None] | None = None,
) -> Iterator[list[int]]:  # fmt: skip
    """While open, a generation calls the denoiser at these places of its schedule alone, and on these states.

    Gives the number of the present visit, in a list of its own.

    Args:
        states: of every visit.
        given: the same as the sampler's step is given latents.
        on_output: called with the number of a visit and what the sampler's step is given of the denoiser.

    Raises:
        InputError: during the generation: the pipeline sets its sampler in another way.
    """
    scheduler, visit = generator.pipe.scheduler, [0]
    timesteps = torch.stack([state.timestep for state in states]).tolist()

    def set_timesteps(usual: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        usual(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[list(places)]
        if scheduler.timesteps.tolist() != timesteps:
            name = type(generator.pipe).__name__
            raise InputError(f"{name} sets its sampler in a way that given pictures cannot follow.")

    def scale(usual: Callable[..., Any], sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return states[visit[0]].read(sample)

    def step(usual: Callable[..., Any], output: Any, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        if on_output is not None:
            on_output(visit[0], output)
        visit[0] = min(visit[0] + 1, len(places) - 1)
        return (given[visit[0]].to(sample),)

    with ExitStack() as stack:
        for name, around in (("set_timesteps", set_timesteps), ("scale_model_input", scale), ("step", step)):
            if hasattr(scheduler, name):  # of flow matching the latents are read as they are
                stack.enter_context(patched(scheduler, name, around))
        yield visit


class Noised:
    """Pictures at one call of the sampler: noised to it, and scaled as its denoiser reads them.

    Attributes:
        noisy: of the shape of what is noised.
        timestep: the sampler's own.
    """

    def __init__(self, scheduler: Any, place: int, clean: Tensor, noise: Tensor) -> None:
        """clean, noise: latents, as [pictures, channels, h, w] or as the sampler takes them."""
        self._clean, self._place = clean, place
        self._own = copy.deepcopy(scheduler)  # samplers that scale by σ remember where they are
        if hasattr(self._own, "set_begin_index"):  # several steps may share a timestep
            self._own.set_begin_index(place)
        self.timestep: Tensor = self._own.timesteps[place]
        times = self.timestep[None].to(clean.device)
        if hasattr(self._own, "add_noise"):
            self.noisy: Tensor = self._own.add_noise(clean, noise, times)
        elif hasattr(self._own, "scale_noise"):
            self.noisy = self._own.scale_noise(clean, times, noise)
        else:
            raise InputError(f"The sampler {type(scheduler).__name__} cannot noise a given picture.")

    def read(self, sample: Tensor) -> Tensor:
        """What the denoiser is given of `sample` here."""
        if not hasattr(self._own, "scale_model_input"):  # of flow matching
            return sample
        scaled: Tensor = self._own.scale_model_input(sample, self.timestep)
        return scaled

    def noise_in(self, output: Tensor) -> Tensor:
        """The noise that a denoiser in EDM's form (Karras et al. 2022, eq. 7) sees in `noisy`, from its output."""
        noisy = self.noisy.float()
        return (noisy - self._denoised(noisy, output.float())) / self._own.sigmas[self._place].to(noisy)

    def perfect(self) -> Tensor:
        """What a denoiser in EDM's form is trained to give of `noisy` (likewise, eq. 8): (x_0 - c_skip x) / c_out."""
        noisy, zeros = self.noisy.float(), torch.zeros_like(self.noisy, dtype=torch.float32)
        skipped, scale = self._denoised(noisy, zeros), self._denoised(zeros, torch.ones_like(zeros))
        return (self._clean.float() - skipped) / scale

    def _denoised(self, noisy: Tensor, output: Tensor) -> Tensor:
        """D of an output F, both float32."""
        given: Tensor = self._own.precondition_outputs(noisy, output, self._own.sigmas[self._place].to(noisy))
        return given
