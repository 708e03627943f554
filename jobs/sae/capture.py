"""The worker that samples pictures and hands out the dense updates of every site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.prompts import Item
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.draw import warn_of_cut
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.sources import Source
from gazetteer.jobs.executors.task import Lost


class CaptureWorker:
    """Generates pictures' latents and returns the dense updates of every site."""

    def __init__(self, model: ModelConfig, generation: GenerationConfig, threads: int) -> None:
        use_threads(threads)
        self.generator = Generator(load_pipeline(model), generation)
        self._warned = False

    def run(self, items: Sequence[Item]) -> dict[Site, np.ndarray]:
        """float16 [pictures * cells, channels] per site, pictures in the order of `items`."""
        updates: dict[Site, list[np.ndarray]] = {}

        def on_site(site: Site, x: torch.Tensor, height: int, width: int) -> None:
            updates.setdefault(site, []).append(x.flatten(0, 1).to(torch.float16).cpu().numpy())

        if not self._warned:
            self._warned = any(warn_of_cut(self.generator.pipe, [item.prompt for item in items]))
        for item in items:
            self.generator.sample([item.prompt], [item.seed], on_site, decode=False)
        return {site: np.concatenate(parts) for site, parts in updates.items()}


def concatenate(parts: Sequence[dict[Site, np.ndarray]]) -> dict[Site, np.ndarray]:
    """The updates of consecutive parts of a job as one."""
    return {site: np.concatenate([part[site] for part in parts]) for site in parts[0]}


def model_digest(config: RunConfig, model: Sequence[Source]) -> str:
    """The digest of the model as the training found it when it began; a hub's id stands for itself."""
    return next((source.digest for source in model if source.key == "model.path"), config.model.path)


def cannot_lose(item: Any, lost: Lost) -> Any:
    """What a training without one of its items is: an error that names the item."""
    raise InputError(f"{item} could not be processed in {lost.attempts} attempts: {lost.error}: {lost.message}")
