"""Train all sites from one stream of pictures: workers sample, others train beside them, nothing else is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.inputs.activation_dataset import heldout_images
from gazetteer.data.inputs.prompts import Item
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.jobs.config.groups import SaeConfig
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.sources import Source, checking
from gazetteer.jobs.executors.task import Companion, Job, Task
from gazetteer.jobs.label.progress.bars import Progress
from gazetteer.jobs.sae.capture import Captured, CaptureWorker, cannot_lose, concatenate, model_digest
from gazetteer.jobs.sae.trainers import Failures, SiteTrainers, groups
from gazetteer.sae.training.stream_train import StreamPlan, finished_stream, require_current

AHEAD = 2
"""Shards that a process which trains may have before it: one it works on, one on its way."""


def expect_no_words(generation: GenerationConfig) -> None:
    """InputError where words are listened to, of which pictures of a stream would not have the same number."""
    if TEXT in generation.streams:
        raise InputError(
            "A stream takes as many vectors of every picture, and prompts differ in their number of words: leave out "
            "--stream (sae.stream=false), or the text stream (generation.streams=[image])."
        )


def train_from_stream(
    config: RunConfig, sae: SaeConfig, items: Sequence[Item], out: Path, executor: Executor, model: tuple[Source, ...]
) -> Failures:
    """Train the autoencoders of every site into ``OUT/saes``; resumes each at the last state of its training.

    Pictures are taken in the order of their ids, which hash prompt and seed: prompts that stand together in a file
    are far apart in the stream. The same pictures are held out as when activations go to disk.

    Returns:
        why sites could not be trained; the others are finished.

    Raises:
        InputError, GazetteerError: as `gazetteer.sae.training.stream_train`.
    """
    ordered = sorted({item.image_id: item for item in items}.values(), key=lambda item: item.image_id)
    heldout = heldout_images([item.image_id for item in ordered])
    train = [item for item in ordered if item.image_id not in heldout]
    digest = digest_json([item.image_id for item in train])
    require_current(out / "saes")
    plans = [StreamPlan(site, len(train), digest, sae.train, sae.buffer) for site in config.generation.sites]
    todo = [plan for plan in plans if finished_stream(plan, out / "saes") is None]
    if not todo:
        return {}
    builds = [partial(SiteTrainers, group, out, sae, config.threads) for group in groups(todo, max(1, sae.workers))]
    with executor.companions(builds) as companions:
        stream = _Stream([plan.site for plan in todo], companions)
        task = Task(_capture(config, model), concatenate, cannot_lose)
        with Progress("stream", len(train), stream.pictures) as progress:

            def feed(parts: Sequence[Item], take: Callable[[Mapping[Site, np.ndarray]], None]) -> None:
                starts = range(0, len(parts), config.shard_size)
                jobs = [Job(f"{start:09d}", tuple(parts[start : start + config.shard_size])) for start in starts]
                executor.run(task, jobs, _InOrder(jobs, take, progress).done)

            if stream.wanted is None:
                # One shard tells how many cells a picture has, and so how many pictures the steps need.
                feed(train[: config.shard_size], stream.take)
                stream.settle()
            feed(train[stream.pictures : stream.wanted], stream.take)
            stream.ask("drain")
            progress.total = stream.pictures + len(heldout)
            feed([item for item in ordered if item.image_id in heldout], stream.measure)
        stream.ask("publish", {"model_digest": model_digest(config, model)})
    return stream.failures


def _capture(config: RunConfig, model: tuple[Source, ...]) -> Callable[..., Any]:
    """What builds the workers that sample."""
    build = partial(CaptureWorker, config.model, config.generation, config.threads, config.batch_size)
    return checking(build, model)


class _Stream:
    """The processes that train, seen from the one that feeds them.

    Attributes:
        pictures: how many those that have least have taken in, or are about to.
        wanted: how many the sites need that need most; None while a site does not know.
        failures: of the sites that ended before their time; those of a process that was lost among them.
    """

    def __init__(self, sites: Sequence[Site], companions: Sequence[Companion]) -> None:
        self.companions = list(companions)
        self.failures: Failures = {}
        self._sites = {
            id(companion): group for companion, group in zip(companions, groups(sites, len(companions)), strict=True)
        }
        self._under_way: dict[int, deque[Callable[[], Any]]] = {id(companion): deque() for companion in companions}
        self._standing: dict[int, tuple[int, int | None]] = {}
        self.ask("standing")
        standing = self._standing.values()
        at_work = [pictures for pictures, wanted in standing if wanted is None or pictures < wanted]
        self.pictures = min(at_work or [pictures for pictures, _ in standing])

    @property
    def wanted(self) -> int | None:
        known = [wanted for _, wanted in self._standing.values()]
        return None if None in known else max(wanted for wanted in known if wanted is not None)

    def take(self, shard: Mapping[Site, np.ndarray]) -> None:
        """Train on the next pictures, [pictures, cells, d] a site."""
        self._hand_out("take", shard, self.pictures)
        self.pictures += len(next(iter(shard.values())))

    def measure(self, shard: Mapping[Site, np.ndarray]) -> None:
        """Count held-out pictures in."""
        self._hand_out("measure", shard)

    def _hand_out(self, method: str, shard: Mapping[Site, np.ndarray], *given: Any) -> None:
        for companion in list(self.companions):
            while companion in self.companions and len(self._under_way[id(companion)]) >= AHEAD:
                self._answered(companion)
            if companion in self.companions:
                own = {site: shard[site] for site in self._sites[id(companion)]}
                self._send(companion, method, own, *given)

    def ask(self, method: str, *given: Any) -> None:
        """Let every process do this and wait until all have."""
        for companion in list(self.companions):
            self._send(companion, method, *given)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is under way."""
        for companion in list(self.companions):
            while companion in self.companions and self._under_way[id(companion)]:
                self._answered(companion)

    def _send(self, companion: Companion, method: str, *given: Any) -> None:
        self._under_way[id(companion)].append(companion.send(method, *given))

    def _answered(self, companion: Companion) -> None:
        """Wait for the oldest call of a process; one that is lost takes its sites along and no others."""
        try:
            pictures, wanted, failures = self._under_way[id(companion)].popleft()()
        except GazetteerError as error:
            self._drop(companion, {site.slug: error for site in self._sites[id(companion)]})
        else:
            self.failures |= failures
            self._standing[id(companion)] = pictures, wanted
            if len(failures) == len(self._sites[id(companion)]):
                self._drop(companion, failures)
        if not self.companions:
            raise next(iter(self.failures.values()))

    def _drop(self, companion: Companion, failures: Failures) -> None:
        self.failures |= {slug: error for slug, error in failures.items() if slug not in self.failures}
        self.companions.remove(companion)
        self._standing.pop(id(companion), None)
        self._under_way[id(companion)].clear()


class _InOrder:
    """Hands the pictures of jobs on in the order of the jobs, in whatever order those are finished.

    What comes too early is held: at most what the other workers finish while one shard takes its time.
    """

    def __init__(
        self, jobs: Sequence[Job], take: Callable[[Mapping[Site, np.ndarray]], None], progress: Progress
    ) -> None:
        self.waiting = [job.id for job in reversed(jobs)]
        self.early: dict[str, tuple[Job, Captured]] = {}
        self.take, self.progress = take, progress

    def done(self, job: Job, result: Captured) -> None:
        """Called with every finished job."""
        self.early[job.id] = (job, result)
        while self.waiting and self.waiting[-1] in self.early:
            ready, captured = self.early.pop(self.waiting.pop())
            count = len(ready.items)
            self.take({site: array.reshape(count, -1, array.shape[1]) for site, array in captured.vectors.items()})
            self.progress.add(count)
