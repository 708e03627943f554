"""What a model shows of some pictures at chosen steps: dense activations and cross-attention, on disk while needed.

`sampled` repeats the sampling of a run's own pictures (same prompts and seeds, so the run's masks hold for them);
`noised` takes finished pictures with known masks, adds the scheduler's noise of each step and passes them once through
the denoiser (arXiv 2504.15473 evaluates on sampled pictures only; here the annotator's error is out).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import IMAGE, Site
from gazetteer.diffusion.attention import attends, capture_attention, token_places
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator, OnSite
from gazetteer.diffusion.noised import noised_updates
from gazetteer.diffusion.watch import Call
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.calibration import on_grid
from gazetteer.labeling.layout.live import stack_codes
from gazetteer.labeling.vocabulary.words import spellings
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.maps import encode_maps

log = logging.getLogger(__name__)


@dataclass
class PassRecord:
    """What was seen of N pictures.

    Attributes:
        image_ids: [N], ascending.
        updates: float16 [N, cells, d] on disk, what was seen of each signal by its place (a `Site`, its t the step's).
        grids: grid of every port, as text.
        attention: float32 [N, cells, C] on disk, on `attention_grid`, by t; 0 for concepts the prompt does not name.
            Empty of denoisers that have no maps of it (`gazetteer.diffusion.attention.attends`).
    """

    image_ids: tuple[str, ...]
    folder: Path
    updates: dict[Site, NDArray[np.float16]] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    attention: dict[float, NDArray[np.float32]] = field(default_factory=dict)
    attention_grid: Grid = (1, 1)

    def take(self, place: Site, images: slice, update: Tensor) -> None:
        """Keep updates [images, cells, d] seen at `place`; InputError where float16 cannot hold one."""
        if not bool((update.abs() <= 65504.0).all()):
            raise InputError(f"An activation at {place.slug} is not finite, or larger than float16 holds (65504).")
        if place not in self.updates:
            shape = (len(self.image_ids), *update.shape[1:])
            path = self.folder / f"{place.port}-{place.branch}-{place.t:.6f}.npy"
            self.updates[place] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        self.updates[place][images] = update.to(torch.float16).cpu().numpy()

    def hearing(self, images: range) -> OnSite:
        """What keeps every site's activations of a batch of pictures."""

        def on_site(site: Site, x: Tensor, height: int, width: int) -> None:
            self.grids[str(site.port)] = (height, width)
            self.take(site, slice(images.start, images.stop), x)

        return on_site

    def part(self, images: slice) -> PassRecord:
        """What was seen of some of the pictures; nothing is read from disk yet."""
        return replace(
            self, image_ids=self.image_ids[images],
            updates={place: update[images] for place, update in self.updates.items()},
            attention={t: maps[images] for t, maps in self.attention.items()},
        )  # fmt: skip

    def codes(self, place: Site, site: Site, sae: SparseAutoencoder) -> SiteCodes:
        """The codes of what was seen at `place`, by the autoencoder of `site`."""
        device = sae.encoder.device
        height, width = self.grids[str(place.port)]
        vectors = (torch.from_numpy(np.asarray(update, np.float32)).to(device) for update in self.updates[place])
        encoded = [encode_maps(sae, update[None], height, width) for update in vectors]
        return stack_codes(site, list(self.image_ids), [maps.fetched()[0] for maps in encoded])


class _Words:
    """Where each concept stands in each tokenised prompt."""

    def __init__(self, tokenizer: Any, prompts: Sequence[str], concepts: Sequence[str]) -> None:
        self.places = [[token_places(tokenizer, prompt, spellings(c)) for c in concepts] for prompt in prompts]

    def maps(self, attention: Tensor, images: range) -> NDArray[np.float32]:
        """Attention [images, cells, tokens] -> summed over each concept's tokens [images, cells, C]."""
        out = np.zeros((*attention.shape[:2], len(self.places[0])), np.float32)
        values = attention.cpu().numpy()
        for row, image in enumerate(images):
            for number, places in enumerate(self.places[image]):
                if places:
                    out[row, :, number] = values[row][:, places].sum(axis=1)
        return out


class _Listener:
    """Collects one batch's attention and adds its mean over layers to what was seen."""

    def __init__(self, generator: Generator, seen: PassRecord, words: _Words, t_of: dict[int, list[float]]) -> None:
        """t_of: every `t` asked for by the place of the denoiser's call that shows it."""
        self.split, self.latent = generator.split, generator.latent_size
        self.seen, self.words, self.t_of = seen, words, t_of
        self.layers: dict[int, list[tuple[Grid, NDArray[np.float32]]]] = {}
        self.images = range(0)

    def __call__(self, layer: str, call: Call, maps: Tensor) -> None:
        half = self.split(maps, len(self.images), call.branches)["cond"]
        grid = halved(self.latent, half.shape[1], layer)
        self.layers.setdefault(call.place, []).append((grid, self.words.maps(half, self.images)))

    def flush(self) -> None:
        """Mean over layers, on the finest of their grids."""
        for place, layers in self.layers.items():
            grid = max((size for size, _ in layers), key=lambda g: g[0] * g[1])
            mean = np.mean([on_grid(maps, own, grid) for own, maps in layers], axis=0)
            for t in self.t_of[place]:
                self._take(t, mean, grid)
        self.layers.clear()

    def _take(self, t: float, mean: NDArray[np.float32], grid: Grid) -> None:
        if t not in self.seen.attention:
            shape = (len(self.seen.image_ids), *mean.shape[1:])
            path = self.seen.folder / f"attention-{t:.6f}.npy"
            self.seen.attention[t] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            self.seen.attention_grid = grid
        self.seen.attention[t][self.images.start : self.images.stop] = mean


def halved(latent: Grid, cells: int, layer: str) -> Grid:
    """The grid of so many cells that a U-Net comes to from its latents: each side halved again and again, rounded up.

    Raises:
        InputError: it comes to no such grid.
    """
    grid = latent
    while grid[0] * grid[1] > cells:
        grid = (-(-grid[0] // 2), -(-grid[1] // 2))
    if grid[0] * grid[1] != cells:
        raise InputError(
            f"{layer} attends from {cells} cells, to which latents of {latent[0]} x {latent[1]} are not halved."
        )
    return grid


def sampled(
    pipe: Any,
    generation: GenerationConfig,
    t: Sequence[float],
    pictures: Sequence[tuple[str, str, int]],
    concepts: Sequence[str],
    folder: Path,
    batch_size: int = 8,
) -> PassRecord:
    """Sample pictures again and keep what the model shows at the steps of `t`.

    Args:
        pictures: (image id, prompt, seed), ids ascending.
        folder: for the updates; to be removed by the caller.
    """
    generator = _generator(pipe, generation, t)
    t_of = _by_place(generator, sorted({site.t for site in generator.moments}))
    seen = PassRecord(tuple(picture[0] for picture in pictures), folder)
    listener = _listener(generator, seen, [picture[1] for picture in pictures], concepts, t_of)
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        images = range(start, start + len(batch))
        with _attending(pipe, listener, images):
            generator.sample(
                [picture[1] for picture in batch], [picture[2] for picture in batch], seen.hearing(images), decode=False
            )
    return seen


def noised(
    pipe: Any,
    generation: GenerationConfig,
    t: Sequence[float],
    pictures: Sequence[tuple[str, str, NDArray[np.uint8]]],
    concepts: Sequence[str],
    folder: Path,
    seed: int = 0,
    attention: bool = True,
    *,
    batch_size: int,
) -> PassRecord:
    """Noise finished pictures to the steps of `t` and pass each once through the denoiser with its caption; one a call
    where `generation` is exact.

    Args:
        pictures: (image id, caption, uint8 [H, W, 3]), ids ascending; scaled to the size that the model draws, and said
            so, where they have another.
        attention: whether cross-attention is wanted too.
        seed: of the noise; each picture and step draws its own, on the CPU.
        batch_size: pictures at once where `generation` is not exact.
    Raises:
        InputError: no image stream is listened to, or the model cannot be given pictures (`diffusion.noised`).
    """
    generator = _generator(pipe, generation, t)
    moments = _by_place(generator, sorted({site.t for site in generator.moments}))
    seen = PassRecord(tuple(picture[0] for picture in pictures), folder)
    t_of = dict(enumerate(moments[place] for place in sorted(moments)))  # the wanted calls are all there are
    captions = [picture[1] for picture in pictures]
    listener = _listener(generator, seen, captions, concepts, t_of) if attention else None

    def noise_seed(number: int, place: int) -> int:
        return (seed * 1_000_003 + number) * 1009 + round(1000 * moments[place][0])

    others = sum(picture[2].shape[:2] != generator.picture_size for picture in pictures)
    if others:
        log.warning("%d pictures with masks are scaled to the model's %d x %d px.", others, *generator.picture_size)

    def passed(start: int, part: slice) -> None:
        images = range(start + part.start, start + part.stop)
        given = [_scaled(pictures[number][2], generator.picture_size) for number in images]
        told, within = [captions[number] for number in images], _attending(pipe, listener, images)
        noised_updates(generator, given, told, images, seen.hearing(images), noise_seed, within)

    for start in range(0, len(pictures), batch_size):
        for _ in generator.fitting.over(min(batch_size, len(pictures) - start), partial(passed, start)):
            pass
    return seen


def _scaled(image: NDArray[np.uint8], size: Grid) -> NDArray[np.uint8]:
    """The picture at the size (height, width) that the model draws; its masks are pooled to cells whatever theirs."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))


def _generator(pipe: Any, generation: GenerationConfig, t: Sequence[float]) -> Generator:
    """Set up to listen to the cells of pictures, at the steps of `t`: words stand nowhere in them."""
    if IMAGE not in generation.streams:
        raise InputError("Pictures with masks say nothing of words; generation.streams names no image stream.")
    return Generator(pipe, replace(generation, t=tuple(t), streams=(IMAGE,)))


def _by_place(generator: Generator, moments: Sequence[float]) -> dict[int, list[float]]:
    """The moments by the place of the denoiser's call that shows them: of few steps, one shows several."""
    places: dict[int, list[float]] = {}
    for t in moments:
        places.setdefault(generator.schedule.place(t), []).append(t)
    return places


def _listener(
    generator: Generator,
    seen: PassRecord,
    prompts: Sequence[str],
    concepts: Sequence[str],
    t_of: dict[int, list[float]],
) -> _Listener | None:
    """What collects attention to words; None of a model that has no maps of it."""
    if not attends(generator.pipe):
        return None
    words = _Words(generator.pipe.tokenizer, prompts, concepts)
    return _Listener(generator, seen, words, t_of)


@contextmanager
def _attending(pipe: Any, listener: _Listener | None, images: range) -> Iterator[None]:
    """While open, the attention of these pictures is collected, if any is wanted."""
    if listener is None:
        yield
        return
    listener.images = images
    listener.layers.clear()  # what was heard before a batch turned out too large
    with capture_attention(pipe, listener, lambda call: call.place in listener.t_of):
        yield
    listener.flush()
