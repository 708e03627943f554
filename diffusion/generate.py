"""Generate pictures from (prompt, seed) pairs while every site is captured in the same pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT, Port, Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.data.tables.images import to_uint8
from gazetteer.diffusion.capture import capture, cells, split_branches
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.config.suitable import check_pipeline
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of, network, require_pipeline
from gazetteer.diffusion.denoisers.words import PromptTokens
from gazetteer.diffusion.draw import blacked_out, pictures_of, tokens_cut
from gazetteer.diffusion.runtime.memory import FittingBatch, enough_memory
from gazetteer.diffusion.schedule import rehearsed
from gazetteer.diffusion.watch import Call
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.maps import CodeTooLarge, EncodedMaps, encode_maps

# (site, activations [images, cells, channels] float32, grid height, grid width)
OnSite = Callable[[Site, Tensor, int, int], None]

Listened = tuple[Any, list[dict[Site, SparseMap]], list[PromptTokens | None]]
"""Of a model batch: the pipeline's output, and of each picture its codes and what its text stream held (`tokens`)."""

SPARE = "model.dtype=float16, model.attention_slicing=true, model.vae_tiling=true or model.offload=model"
"""What needs less memory when pictures are sampled one by one already."""

NOT_FINITE = "the model produced values that are not finite; model.dtype=bfloat16 and float32 have the range for them"


@dataclass
class Picture:
    """One generated picture: uint8 [height, width, 3], and its code at every site.

    Attributes:
        tokens_cut: tokens of the prompt that the text encoders did not read; None where nobody counted.
        blacked_out: whether the model's safety checker painted it over, so that the codes belong to what it hides.
        tokens: what the text stream held; None where nobody listens to it.
    """

    image: np.ndarray
    codes: dict[Site, SparseMap] = field(default_factory=dict)
    tokens_cut: int | None = None
    blacked_out: bool = False
    tokens: PromptTokens | None = None


class Generator:
    """A pipeline set up to be listened to at the sites of a `GenerationConfig`."""

    def __init__(self, pipe: Any, config: GenerationConfig) -> None:
        """Raises InputError for an unknown block, no pipeline, or a model or sampler that cannot draw such pictures."""
        require_pipeline(pipe)
        self.pipe, self.config = pipe, config
        self.adapter, self._network = adapter_of(pipe), network(pipe)
        inside: Any = self._network.config
        name, whole = type(pipe).__name__, dict(getattr(pipe, "config", {}))
        check_pipeline(name, whole, inside, pipe.vae.config, self.adapter, config)
        self.ports = tuple(dict.fromkeys(site.port for site in config.sites))
        for port in self.ports:
            self.adapter.check(self._network, port)
        self.tokens("")  # a tokenizer that does not tell words is named before anything is sampled
        self._scale = getattr(pipe, "vae_scale_factor", 8) if self._unet else self.adapter.scale(pipe.vae.config)
        self.latent_size = self.adapter.latent_size(inside, config.height, config.width, self._scale)
        self._setting = self.adapter.timesteps(pipe.scheduler, config.steps, inside, self.latent_size)
        unseeded = "" if self.adapter.seeds_steps else name
        self.schedule = rehearsed(pipe.scheduler, config.steps, self._unet, unseeded, **self._setting)
        self.moments = {site: self.schedule.moment(site.t) for site in config.sites}
        self._sites_at: dict[tuple[Port, int, str], list[Site]] = {}
        for site in config.sites:
            self._sites_at.setdefault((site.port, self.schedule.place(site.t), site.branch), []).append(site)
        self._places = frozenset(place for _, place, _ in self._sites_at)
        self.fitting = FittingBatch("sampling pictures", "batch_size", 1 if config.exact else 0, SPARE)

    @property
    def _unet(self) -> bool:
        return self.adapter is UNET

    @property
    def guided(self) -> bool | None:
        """Whether calls hold both branches, of pipelines that do not say it themselves (PixArt's); None: they do."""
        return None if hasattr(self.pipe, "do_classifier_free_guidance") else self.adapter.stacked(self.config)

    def split(self, values: Tensor, images: int, branches: Sequence[str]) -> dict[str, Tensor]:
        """`split_branches` of what its pipeline's present generation gives."""
        guided = self.adapter.guided(self.pipe) if self.guided is None else self.guided
        return split_branches(values, images, branches, guided)

    def arguments(self, prompts: Sequence[str]) -> dict[str, Any]:
        """What the pipeline is called with beside latents and generators: prompts, guidance, steps and size."""
        size = {name: value for name in ("height", "width") if (value := getattr(self.config, name))}
        if not self._unet:  # not all of them draw by default what the network was made for
            size = dict(zip(("height", "width"), (side * self._scale for side in self.latent_size), strict=True))
        told = self.adapter.arguments(self.pipe, prompts, self.config)
        return {**told, "num_inference_steps": self.config.steps, **size}

    def set_timesteps(self) -> None:
        """Set the sampler's timesteps as the pipeline does."""
        self.pipe.scheduler.set_timesteps(**self._setting)

    def latents(self, noise: Sequence[Tensor]) -> Tensor:
        """Starting noises (`noise`), as the pipeline takes them for a batch."""
        return self.adapter.latents(self.pipe, torch.cat(list(noise)))

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of its pictures in px."""
        scale = getattr(self.pipe, "vae_scale_factor", 8)
        return self.latent_size[0] * scale, self.latent_size[1] * scale

    def noise(self, seed: int, generator: torch.Generator | None = None) -> Tensor:
        """Starting noise [1, channels, h, w], float32 on the CPU: it belongs to the seed alone.

        generator: one on the CPU, freshly seeded with `seed`, to draw from; a sampler that adds noise at its steps
        (ancestral ones) goes on with it, so that this noise belongs to the seed too.
        """
        shape = (1, self.adapter.channels(self._network.config), *self.latent_size)  # type: ignore[arg-type]
        return torch.randn(shape, generator=generator or torch.Generator("cpu").manual_seed(seed))

    @torch.inference_mode()
    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], on_site: OnSite, *, decode: bool = True
    ) -> np.ndarray | None:
        """Sample pictures in one model batch, handing every site's update to `on_site`.

        Returns:
            uint8 [images, height, width, 3], or None without `decode`.

        Raises:
            GazetteerError: out of device memory.
            InputError: a site was not heard, or the safety checker blacked a picture out.
            ValueError: a picture or an update is not finite.
        """
        output = self._sample(prompts, seeds, on_site, decode)
        return pictures_of(output) if decode else None

    @torch.inference_mode()
    def _sample(self, prompts: Sequence[str], seeds: Sequence[int], on_site: OnSite, decode: bool) -> Any:
        """The pipeline's output, ``np`` or latents, checked to be finite and heard."""
        heard: set[tuple[Port, int, str]] = set()

        def on_signal(port: Port, call: Call, values: Tensor) -> None:
            for branch, half in self.split(values, len(prompts), call.branches).items():
                key = (port, call.place, branch)
                if key in heard:
                    raise InputError(
                        f"{type(self.pipe).__name__} calls its {self.adapter.kind} more than once at sampler step "
                        f"{call.step}; only pipelines that run each branch of guidance once can be listened to."
                    )
                heard.add(key)
                for site in self._sites_at.get(key, ()):
                    on_site(site, cells(half), values.shape[2], values.shape[3])

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with enough_memory("sampling pictures", "batch_size", len(prompts), SPARE):
            # the pipeline moves them to its device, which an offloaded network does not tell
            noise = [self.noise(seed, own) for seed, own in zip(seeds, generators, strict=True)]
            latents, schedule = self.latents(noise), None if self._unet else self.schedule
            with capture(self.pipe, self.ports, on_signal, lambda call: call.place in self._places, schedule):
                output = self.pipe(
                    latents=latents,
                    generator=generators,
                    output_type="np" if decode else "latent",
                    **self.arguments(prompts),
                )
        if unheard := self._sites_at.keys() - heard:
            port, place, branch = min(unheard)
            raise InputError(
                f"{type(self.pipe).__name__} ended before {port} was heard at call {place + 1} of the branch {branch}."
            )
        made = output.images
        finite = bool(made.isfinite().all()) if isinstance(made, Tensor) else np.isfinite(np.asarray(made)).all()
        if not finite:
            raise ValueError(NOT_FINITE)
        return output

    def pictures(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        saes: Mapping[Site, SparseAutoencoder],
        watch: OnSite | None = None,
    ) -> list[Picture]:
        """Generate pictures and encode every site on the spot, in the order given.

        watch: called with every site's activations once they are encoded; with those of words one prompt at a time,
            without padding.

        Raises: as `sample`.
        """
        done: list[Picture] = []
        cut = tokens_cut(self.pipe, prompts)
        for output, codes, texts in self._listened(prompts, seeds, saes, watch, decode=True):
            hidden = blacked_out(output)
            for place, (image, code, words) in enumerate(zip(to_uint8(output.images), codes, texts, strict=True)):
                done.append(Picture(image, code, cut[len(done)], place in hidden, words))
        return done

    def codes(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        saes: Mapping[Site, SparseAutoencoder],
        watch: OnSite | None = None,
    ) -> list[dict[Site, SparseMap]]:
        """Encode every site of pictures that exist already, by sampling again from their seeds without decoding.

        The codes are those that `pictures` gives, and so is `watch`. Raises: as `sample`.
        """
        return [code for _, codes, _ in self._listened(prompts, seeds, saes, watch, decode=False) for code in codes]

    def tokens(self, prompt: str) -> PromptTokens | None:
        """What the text stream holds of a prompt, where a site listens to it; InputError where that is not known."""
        return self.adapter.tokens(self.pipe, prompt) if any(port.stream == TEXT for port in self.ports) else None

    def _listened(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        saes: Mapping[Site, SparseAutoencoder],
        watch: OnSite | None,
        decode: bool,
    ) -> Iterator[Listened]:
        """One model batch after the other, as many pictures at once as fit."""

        def made(batch: slice) -> Listened:
            heard = BatchCodes([self.tokens(prompt) for prompt in prompts[batch]], saes, watch)
            output = self._sample(prompts[batch], seeds[batch], heard.on_site, decode)
            return output, heard.codes(), heard.texts

        yield from self.fitting.over(len(prompts), made)


class BatchCodes:
    """The codes of one model batch, from what every site hands over."""

    def __init__(
        self, texts: Sequence[PromptTokens | None], saes: Mapping[Site, SparseAutoencoder], watch: OnSite | None
    ) -> None:
        """texts: of each picture what its text stream holds (`Generator.tokens`); watch: as of `Generator.pictures`."""
        self.texts, self._saes, self._watch = list(texts), saes, watch
        self._encoded: dict[Site, list[EncodedMaps]] = {}

    def on_site(self, site: Site, x: Tensor, height: int, width: int) -> None:
        """Encode a site's activations, those of words one prompt at a time and without padding."""
        spoken = site.stream == TEXT
        parts = [_read(text, own)[None] for text, own in zip(self.texts, x, strict=True)] if spoken else [x]
        self._encoded[site] = []
        for part in parts:
            columns = part.shape[1] // height
            self._encoded[site].append(encode_maps(self._saes[site], part, height, columns))
            if self._watch is not None:
                self._watch(site, part, height, columns)

    def codes(self) -> list[dict[Site, SparseMap]]:
        """Of every picture, by site; raises as `EncodedMaps.fetched`, with the site."""
        codes: list[dict[Site, SparseMap]] = [{} for _ in self.texts]
        for site, parts in self._encoded.items():
            try:
                maps = [code for part in parts for code in part.fetched()]
            except CodeTooLarge as error:
                raise CodeTooLarge(error.largest, site.slug) from None
            if site.stream == TEXT:
                maps = [in_places(code, text) for code, text in zip(maps, self.texts, strict=True)]
            for own, code in zip(codes, maps, strict=True):
                own[site] = code
        return codes


def _read(text: PromptTokens | None, vectors: Tensor) -> Tensor:
    """What is no padding of the activations [places, channels] of a prompt, [tokens, channels].

    Raises:
        InputError: the stream has other places than its pipeline's encoders fill.
    """
    assert text is not None
    return vectors[torch.tensor(text.read_of(len(vectors)), device=vectors.device)]


def in_places(code: SparseMap, text: PromptTokens | None) -> SparseMap:
    """The code of a prompt's tokens, from that of those that are no padding; the slots of padding are unused."""
    assert text is not None
    read = np.flatnonzero(text.read)
    feature = np.zeros((len(text.read), code.k), np.uint32)
    value = np.zeros((len(text.read), code.k), np.float16)
    feature[read], value[read] = code.feature.reshape(-1, code.k), code.value.reshape(-1, code.k)
    return replace(code, width=len(text.read), feature=feature.reshape(-1), value=value.reshape(-1))
