"""The streams of several sites in one process, beside those that sample: what fails at one ends that one alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.jobs.config.groups import SaeConfig
from gazetteer.sae.training.stream_train import StreamPlan, StreamTrainer
from gazetteer.sae.training.tensorboard import TensorBoardWriter

Failures = dict[str, GazetteerError]
"""By the slug of a site, why it could not be trained."""
Standing = tuple[int, int | None, Failures]
"""Pictures that every site at work has taken in, pictures that they need (None: not known yet), and what failed."""
T = TypeVar("T")


def groups(items: Sequence[T], count: int) -> list[list[T]]:
    """The items dealt out to at most `count` processes."""
    return [list(items[start::count]) for start in range(min(count, len(items)))]


def failed(failures: Mapping[str, GazetteerError], sites: int) -> GazetteerError:
    """One error of what failed at some of the sites; InputError where all of it was the input's fault."""
    kind = InputError if all(isinstance(error, InputError) for error in failures.values()) else GazetteerError
    others = f" The other {sites - len(failures)} of {sites} are finished and stay." if len(failures) < sites else ""
    return kind(f"{' '.join(map(str, dict.fromkeys(map(str, failures.values()))))}{others}")


class SiteTrainers:
    """Trains some sites, each as `StreamTrainer` does; every method answers with the `Standing` after it."""

    def __init__(self, plans: Sequence[StreamPlan], out: Path, sae: SaeConfig, threads: int) -> None:
        if sae.device == "cpu":
            use_threads(threads)
        self._writer = TensorBoardWriter(out / "tensorboard") if sae.tensorboard else None
        self._trainers: dict[Site, StreamTrainer] = {}
        self._failures: Failures = {}
        for plan in plans:
            log = partial(self._writer.add, plan.site) if self._writer else None
            try:
                self._trainers[plan.site] = StreamTrainer(plan, out / "saes", sae.device, log)
            except GazetteerError as error:
                self._failures[plan.site.slug] = error

    def standing(self) -> Standing:
        """Where they are."""
        trainers = self._trainers.values()
        at_work = [trainer for trainer in trainers if trainer.wanted is None or trainer.pictures < trainer.wanted]
        pictures = [trainer.pictures for trainer in at_work or trainers]
        known = [trainer.wanted for trainer in trainers]
        wanted = None if None in known else max((count for count in known if count is not None), default=0)
        return min(pictures, default=0), wanted, self._failures

    def take(self, shard: Mapping[Site, np.ndarray], first: int) -> Standing:
        """Train on pictures [pictures, cells, d] a site, of which `first` have gone before; what one had is skipped."""
        return self._each(lambda site, trainer: self._add(trainer, shard[site], first))

    def _add(self, trainer: StreamTrainer, pictures: np.ndarray, first: int) -> None:
        table = torch.from_numpy(np.require(pictures, requirements="W"))
        for number in range(max(0, trainer.pictures - first), len(table)):
            if trainer.wanted is None or trainer.pictures < trainer.wanted:
                trainer.add(table[number])

    def drain(self) -> Standing:
        """Train on what the buffers hold."""
        return self._each(lambda _, trainer: trainer.drain())

    def measure(self, shard: Mapping[Site, np.ndarray]) -> Standing:
        """Count held-out pictures in."""

        def count(site: Site, trainer: StreamTrainer) -> None:
            for picture in torch.from_numpy(np.require(shard[site], requirements="W")):
                trainer.measure(picture)

        return self._each(count)

    def publish(self, metadata: Mapping[str, Any]) -> Standing:
        """Write the autoencoders, in float16."""
        standing = self._each(lambda _, trainer: trainer.publish(metadata, torch.float16))
        if self._writer:
            self._writer.close()
        return standing

    def _each(self, do: Callable[[Site, StreamTrainer], Any]) -> Standing:
        for site, trainer in list(self._trainers.items()):
            try:
                do(site, trainer)
            except GazetteerError as error:
                self._failures[site.slug] = error
                del self._trainers[site]
        return self.standing()
