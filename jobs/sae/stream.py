"""Train all sites from one stream of pictures: workers sample, this process trains, nothing else is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.activation_dataset import heldout_images
from gazetteer.data.inputs.prompts import Item
from gazetteer.jobs.config.schema import RunConfig, SaeConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.sources import Source, checking
from gazetteer.jobs.executors.task import Job, Task
from gazetteer.jobs.label.progress import Progress
from gazetteer.jobs.sae.capture import CaptureWorker, cannot_lose, concatenate, model_digest
from gazetteer.sae.training.stream_train import StreamPlan, StreamTrainer, finished_stream
from gazetteer.sae.training.tensorboard import TensorBoardWriter


def train_from_stream(
    config: RunConfig, sae: SaeConfig, items: Sequence[Item], out: Path, executor: Executor, model: tuple[Source, ...]
) -> None:
    """Train the autoencoders of every site into ``OUT/saes``; resumes at the last state of the training.

    Pictures are taken in the order of their ids, which hash prompt and seed: prompts that stand together in a file
    are far apart in the stream. The same pictures are held out as when activations go to disk.

    Raises:
        InputError, GazetteerError: as `gazetteer.sae.training.stream_train`.
    """
    ordered = sorted({item.image_id: item for item in items}.values(), key=lambda item: item.image_id)
    heldout = heldout_images([item.image_id for item in ordered])
    train = [item for item in ordered if item.image_id not in heldout]
    digest = digest_json([item.image_id for item in train])
    plan = StreamPlan(config.generation.sites, len(train), digest, sae.train, sae.buffer)
    if finished_stream(plan, out / "saes") is not None:
        return
    if sae.device == "cpu":
        use_threads(config.threads)
    writer = TensorBoardWriter(out / "tensorboard") if sae.tensorboard else None
    trainer = StreamTrainer(plan, out / "saes", sae.device, writer.add if writer else None)
    capture = checking(partial(CaptureWorker, config.model, config.generation, config.threads), model)
    task = Task(capture, concatenate, cannot_lose)
    with Progress("stream", len(train), trainer.pictures) as progress:

        def feed(parts: Sequence[Item], take: Callable[[dict[Site, Tensor]], None]) -> None:
            starts = range(0, len(parts), config.shard_size)
            jobs = [Job(f"{start:09d}", tuple(parts[start : start + config.shard_size])) for start in starts]
            executor.run(task, jobs, _InOrder(jobs, take, progress).done)

        if trainer.wanted is None:
            # One shard tells how many cells a picture has, and so how many pictures the steps need.
            feed(train[: config.shard_size], trainer.add)
        feed(train[trainer.pictures : trainer.wanted], trainer.add)
        trainer.drain()
        progress.total = trainer.pictures + len(heldout)
        feed([item for item in ordered if item.image_id in heldout], trainer.measure)
    trainer.publish({"model_digest": model_digest(config, model)}, torch.float16)
    if writer:
        writer.close()


class _InOrder:
    """Hands the pictures of jobs on in the order of the jobs, in whatever order those are finished.

    What comes too early is held: at most what the other workers finish while one shard takes its time.
    """

    def __init__(self, jobs: Sequence[Job], take: Callable[[dict[Site, Tensor]], None], progress: Progress) -> None:
        self.waiting = [job.id for job in reversed(jobs)]
        self.early: dict[str, tuple[Job, dict[Site, np.ndarray]]] = {}
        self.take, self.progress = take, progress

    def done(self, job: Job, result: dict[Site, np.ndarray]) -> None:
        """Called with every finished job."""
        self.early[job.id] = (job, result)
        while self.waiting and self.waiting[-1] in self.early:
            ready, arrays = self.early.pop(self.waiting.pop())
            count = len(ready.items)
            tables = {
                site: torch.from_numpy(array).reshape(count, -1, array.shape[1]) for site, array in arrays.items()
            }
            for number in range(count):
                self.take({site: table[number] for site, table in tables.items()})
            self.progress.add(count)
