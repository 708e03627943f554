"""The worker that samples pictures and hands out the dense updates of every site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.prompts import Item
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.words import PromptTokens
from gazetteer.diffusion.draw import warn_of_cut
from gazetteer.diffusion.generate import SPARE, Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.diffusion.runtime.memory import FittingBatch
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.sources import Source
from gazetteer.jobs.executors.task import Lost


class Captured(NamedTuple):
    """What some pictures gave.

    Attributes:
        vectors: float16 [pictures * cells, channels] by site, pictures in their order.
        cells: rows of each picture by site; words of a prompt differ in number.
    """

    vectors: dict[Site, np.ndarray]
    cells: dict[Site, list[int]]


class CaptureWorker:
    """Generates pictures' latents and returns the dense updates of every site.

    Pictures go through the model `batch_size` at a time, or as many as memory takes; one by one while
    ``generation.exact`` is true, and where words are listened to, which a batch would fill up to the longest prompt.
    """

    def __init__(self, model: ModelConfig, generation: GenerationConfig, threads: int, batch_size: int) -> None:
        use_threads(threads)
        self.generator = Generator(load_pipeline(model), generation)
        self._words = any(site.stream == "text" for site in generation.sites)
        size = 1 if generation.exact or self._words else batch_size
        self.fitting = FittingBatch("sampling pictures", "batch_size", size, SPARE)
        self._warned = False

    def run(self, items: Sequence[Item]) -> Captured:
        """The updates of the pictures of `items`."""
        if not self._warned:
            self._warned = any(warn_of_cut(self.generator.pipe, [item.prompt for item in items]))

        def sampled(part: slice) -> _Copies:
            copies = _Copies(self.generator.tokens(items[part.start].prompt))
            prompts, seeds = [item.prompt for item in items[part]], [item.seed for item in items[part]]
            self.generator.sample(prompts, seeds, copies.take, decode=False)
            return copies

        return concatenate([copies.arrived() for copies in list(self.fitting.over(len(items), sampled))])


class _Copies:
    """Updates on their way to the host: in float16 and, from a GPU, into pinned memory without waiting for them.

    Of a text stream only the places that are read are taken: padding would be most of what an autoencoder learns from.
    """

    def __init__(self, text: PromptTokens | None = None) -> None:
        self._text = text
        self._parts: dict[Site, list[Tensor]] = {}
        self._cells: dict[Site, list[int]] = {}
        self._devices: set[torch.device] = set()

    def take(self, site: Site, x: Tensor, height: int, width: int) -> None:
        """Begin to copy a site's updates [pictures, cells, channels]."""
        if site.stream == "text" and self._text is not None:
            x = x[:, torch.tensor(self._text.read_of(x.shape[1]), device=x.device)]
        half = x.flatten(0, 1).to(torch.float16)
        if half.device.type == "cuda":
            pinned = torch.empty(half.shape, dtype=half.dtype, pin_memory=True)
            half = pinned.copy_(half, non_blocking=True)
            self._devices.add(x.device)
        self._parts.setdefault(site, []).append(half.cpu())
        self._cells.setdefault(site, []).extend([x.shape[1]] * len(x))

    def arrived(self) -> Captured:
        """Everything taken, once it has arrived."""
        for device in self._devices:
            torch.cuda.synchronize(device)
        return Captured({site: torch.cat(parts).numpy() for site, parts in self._parts.items()}, self._cells)


def concatenate(parts: Sequence[Captured]) -> Captured:
    """The updates of consecutive parts of a job as one."""
    vectors = {site: np.concatenate([part.vectors[site] for part in parts]) for site in parts[0].vectors}
    return Captured(vectors, {site: [count for part in parts for count in part.cells[site]] for site in vectors})


def model_digest(config: RunConfig, model: Sequence[Source]) -> str:
    """The digest of the model as the training found it when it began; a hub's id stands for itself."""
    return next((source.digest for source in model if source.key == "model.path"), "") or config.model.path


def cannot_lose(item: Any, lost: Lost) -> Any:
    """What a training without one of its items is: an error that names the item."""
    raise InputError(f"{item} could not be processed in {lost.attempts} attempts: {lost.error}: {lost.message}")
