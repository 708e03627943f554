"""Train the autoencoder of one site from a stream of pictures, with no activation on disk.

Several sites train from the same pictures, each for itself: what one learns does not depend on which others there are,
nor on whether they fail. What is on disk while it runs is the state of the training, in ``OUT/_stream/<site>``:
``state.json`` says how many pictures it holds and in which folder, and is replaced last.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.chunks import is_finite
from gazetteer.sae.model.files import CONFIG, read_config
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.metrics import MetricSums
from gazetteer.sae.training.stream import ShuffleBuffer, expect_room, seed_of
from gazetteer.sae.training.tensor_file import write_tensors
from gazetteer.sae.training.train import OnLog, TrainResult, expect_same, finished, identity_of, publish
from gazetteer.sae.training.trainer import Trainer, read_snapshot

FOLDER = "_stream"
# Pictures cost more than steps: a state is written this often even when few steps were made.
SAVE_SECONDS = 600.0


@dataclass(frozen=True)
class StreamPlan:
    """What the stream holds and how a site is trained on it.

    Attributes:
        site: whose vectors they are.
        pictures: in the whole stream, held-out ones not counted.
        digest: names the pictures and their order.
        config: of the training; ``epochs`` must be 1, ``steps`` may end it early.
        capacity: vectors held back for the shuffle, in the type they come in.
    """

    site: Site
    pictures: int
    digest: str
    config: TrainConfig
    capacity: int

    def __post_init__(self) -> None:
        expect_room(self.capacity, self.config.batch_size)
        if self.config.epochs != 1:
            raise InputError("A stream shows every picture once: raise sae.images instead of sae.train.epochs.")

    def identity(self, d: int, vectors: int) -> dict[str, Any]:
        """What makes the run this run; the order of the vectors follows from the buffer's size too."""
        digest = digest_json({"stream": self.digest, "capacity": self.capacity})
        return identity_of(self.config, self.site, d, vectors, digest)


class StreamTrainer:
    """Trains as pictures come in: `add` each in order, then `drain`, `measure` held-out ones, `publish`.

    A run that was killed at any moment goes on from its last state, `pictures` in, and ends in the same bytes as one
    that was not (same machine and threads), provided that the same pictures come again.

    Attributes:
        pictures: how many were taken in, those before a resume included.
    """

    def __init__(
        self, plan: StreamPlan, out: Path | str, device: torch.device | str = "cpu", on_log: OnLog | None = None
    ) -> None:
        """Open the run of a site in the folder `out` of all sites, or resume it.

        Raises:
            InputError: `out` holds a run with other settings or pictures, or its state is damaged.
        """
        self.plan, self.out, self.device, self.on_log = plan, Path(out), device, on_log
        self.pictures, self._saved_step, self._saved_at = 0, 0, time.monotonic()
        self._buffer: ShuffleBuffer | None = None
        self._evaluation: MetricSums | None = None
        self._root = self.out / FOLDER / plan.site.slug
        require_current(self.out)
        if (self._root / "state.json").exists():
            self._resume()

    @property
    def wanted(self) -> int | None:
        """Pictures from the start until the steps are made, the buffer full at each if there are enough; None before
        the first picture."""
        if self._buffer is None:
            return None
        vectors = (self.trainer.steps - 1) * self.plan.config.batch_size + self.plan.capacity
        return min(self.plan.pictures, -(-vectors // self.cells))

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self._buffer is not None and self.trainer.step == self.trainer.steps

    def add(self, vectors: Tensor) -> None:
        """Take the vectors [cells, d] of the next picture in and train while the buffer is full.

        Raises:
            InputError: a picture with another number of vectors, or values that are not finite.
            GazetteerError: training diverged. Both name the site.
        """
        if self._buffer is None:
            self._open(vectors)
        assert self._buffer is not None
        if len(vectors) != self.cells:
            raise InputError(
                f"A picture at {self.plan.site.slug} has {len(vectors)} vectors; the first had {self.cells}."
            )
        if not is_finite(vectors):  # before it is among those that a later step may draw, and a state keeps
            raise InputError(
                f"Training the SAE at {self.plan.site.slug} stopped: the activations of picture {self.pictures + 1} "
                "hold NaN or infinity."
            )
        while len(vectors) > 0 and not self.done:
            vectors = self._buffer.fill(vectors)
            if self._buffer.full:
                self._advance()
        self.pictures += 1
        steps = self.trainer.step - self._saved_step
        if steps >= self.plan.config.checkpoint_every or time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def drain(self) -> None:
        """After the last picture: train on what the buffer still holds; raises as `add`."""
        if self._buffer is None:
            raise InputError("The stream held no pictures.")
        while self._buffer.held >= self._buffer.batch_size and not self.done:
            self._advance()
        self.save()

    def measure(self, vectors: Tensor) -> None:
        """Count the vectors [cells, d] of a held-out picture into the metrics, after `drain`."""
        self._evaluation = self._evaluation or MetricSums(self.trainer.sae)
        self._evaluation.add(vectors)

    def publish(self, metadata: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32) -> TrainResult:
        """Write ``OUT/<site.slug>`` and remove the state of the run."""
        site = self.plan.site
        result = publish(
            self.trainer, self.out / site.slug, self.identity, site, self._evaluation, metadata, dtype
        )  # fmt: skip
        shutil.rmtree(self._root, ignore_errors=True)
        with suppress(OSError):  # other sites are still at it
            self._root.parent.rmdir()
        return result

    def save(self) -> None:
        """Write the state to a folder of its own, then make it count."""
        assert self._buffer is not None
        # No two states share a folder: one that counts is never written over.
        name = f"{self.pictures:09d}-{self.trainer.step:09d}"
        write_tensors(self._root / name / "buffer", self._buffer.state())
        if self.trainer.step > 0:
            self.trainer.save(self._root / name / "training", self.identity)
        shape = [self.cells, self.trainer.sae.config.d, str(self._buffer.table.dtype).removeprefix("torch.")]
        state = {"pictures": self.pictures, "folder": name, "plan": self.plan.identity(0, self.plan.pictures)}
        replace_file(self._root / "state.json", json.dumps(state | {"shape": shape}, indent=1).encode())
        self._saved_step, self._saved_at = self.trainer.step, time.monotonic()
        for old in self._root.iterdir():
            if old.is_dir() and old.name != name:
                shutil.rmtree(old, ignore_errors=True)

    def _resume(self) -> None:
        path = self._root / "state.json"
        try:
            state = json_object(path.read_bytes())
            expect_same(state["plan"], self.plan.identity(0, self.plan.pictures), self.out)
            cells, d, dtype = state["shape"]
            if not all(type(size) is int and size > 0 for size in (cells, d)):
                raise ValueError("the shape of a picture's vectors is none")
            self._open(torch.empty(cells, d, dtype=getattr(torch, dtype)))
            assert self._buffer is not None
            folder = self._root / state["folder"]
            self._buffer.restore(load_tensors((folder / "buffer").read_bytes()))
            if (folder / "training").exists():
                self.trainer.restore(read_snapshot(folder / "training"))
            self.pictures, self._saved_step = int(state["pictures"]), self.trainer.step
        except (ValueError, KeyError, TypeError, AttributeError, OSError, SafetensorError) as error:
            raise InputError(f"The training state in {self._root} is damaged; delete it to start over.") from error

    def _open(self, like: Tensor) -> None:
        """The buffer and the trainer for vectors as those of `like` [cells, d]."""
        self.cells, d = like.shape
        plan, config, vectors = self.plan, self.plan.config, self.cells * self.plan.pictures
        steps, streamed = config.total_steps(vectors), vectors // config.batch_size
        if steps > streamed:
            needed = -(-steps * config.batch_size // max(self.cells, 1))
            raise InputError(
                f"sae.train.steps={steps} at {plan.site.slug} need {needed} pictures, but the stream has "
                f"{plan.pictures}; raise sae.images or lower sae.train.steps."
            )
        self.identity = plan.identity(d, vectors)
        self._buffer = ShuffleBuffer(like, plan.capacity, config.batch_size, seed_of(config.seed, plan.site.slug))
        self.trainer = Trainer(d, config, steps, self.device)

    def _advance(self) -> None:
        """One step, which starts from the first vectors held."""
        trainer, buffer = self.trainer, self._buffer
        assert buffer is not None
        try:
            if trainer.step == 0:
                trainer.start(buffer.sample(trainer.config.median_vectors))
            logged = len(trainer.history)
            trainer.advance(buffer.draw())
        except GazetteerError as error:
            raise type(error)(f"Training the SAE at {self.plan.site.slug} stopped: {error}") from error
        if self.on_log is not None and len(trainer.history) > logged:
            self.on_log(trainer.history[-1])


def require_current(out: Path) -> None:
    """InputError where `out` holds the state of a stream as earlier versions wrote it, of all sites in one."""
    old = out / FOLDER / "state.json"
    if old.exists():
        raise InputError(f"{old.parent} is the state of a training by an earlier version; delete it to start over.")


def finished_stream(plan: StreamPlan, out: Path | str) -> TrainResult | None:
    """The result `out` already holds for this plan, or None when there is something left to train.

    Raises:
        InputError: `out` holds an autoencoder of another run.
    """
    folder = Path(out) / plan.site.slug
    if (Path(out) / FOLDER / plan.site.slug).exists() or not (folder / CONFIG).exists():
        return None
    data = (read_config(folder).get("training") or {}).get("data") or {}
    return finished(folder, plan.identity(data.get("d", 0), data.get("vectors", 0)))
