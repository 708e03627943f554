"""Train the autoencoders of every site at once from one stream of pictures, with no activation on disk.

What is on disk while it runs is the state of the training, in ``OUT/_stream``: ``state.json`` says how many pictures
it holds and in which folder, and is replaced last, so that all sites always stand at the same picture.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from gazetteer.data.core.atomic import replace_file
from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.files import CONFIG, read_config
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.metrics import MetricSums
from gazetteer.sae.training.stream import ShuffleBuffer, expect_room, seed_of
from gazetteer.sae.training.tensor_file import write_tensors
from gazetteer.sae.training.train import TrainResult, expect_same, finished, identity_of, publish
from gazetteer.sae.training.trainer import Trainer, read_snapshot

FOLDER = "_stream"
# Pictures cost more than steps: a state is written this often even when few steps were made.
SAVE_SECONDS = 600.0

Picture = Mapping[Site, Tensor]
"""The vectors [cells, d] of one picture at every site."""

OnSiteLog = Callable[[Site, dict[str, float]], None]


@dataclass(frozen=True)
class StreamPlan:
    """What the stream holds and how it is trained on.

    Attributes:
        sites: that every picture comes with.
        pictures: in the whole stream, held-out ones not counted.
        digest: names the pictures and their order.
        config: of every site's training; ``epochs`` must be 1, ``steps`` may end it early.
        capacity: vectors held back per site for the shuffle, in the type they come in.
    """

    sites: Sequence[Site]
    pictures: int
    digest: str
    config: TrainConfig
    capacity: int

    def __post_init__(self) -> None:
        expect_room(self.capacity, self.config.batch_size)
        if self.config.epochs != 1:
            raise InputError("A stream shows every picture once: raise sae.images instead of sae.epochs.")

    @property
    def data_digest(self) -> str:
        """Names the order of the vectors, which the buffer's size decides too."""
        return digest_json({"stream": self.digest, "capacity": self.capacity})


class StreamTrainer:
    """Trains as pictures come in: `add` each in order, then `drain`, `measure` held-out ones, `publish`.

    A run that was killed at any moment goes on from its last state, `pictures` in, and ends in the same bytes as one
    that was not (same machine and threads), provided that the same pictures come again.

    Attributes:
        pictures: how many were taken in, those before a resume included.
    """

    def __init__(
        self, plan: StreamPlan, out: Path | str, device: torch.device | str = "cpu", on_log: OnSiteLog | None = None
    ) -> None:
        """Open the run in `out`, or resume it.

        Raises:
            InputError: `out` holds a run with other settings or pictures, or its state is damaged.
        """
        self.plan, self.out, self.device, self.on_log = plan, Path(out), device, on_log
        self.pictures, self._saved_step, self._saved_at = 0, 0, time.monotonic()
        self._lanes: dict[Site, _Lane] = {}
        self._evaluations: dict[Site, MetricSums] = {}
        if (self.out / FOLDER / "state.json").exists():
            self._resume()

    @property
    def wanted(self) -> int | None:
        """Pictures from the start until every site has made its steps; None before the first picture."""
        return max(lane.pictures_wanted for lane in self._lanes.values()) if self._lanes else None

    def add(self, picture: Picture) -> None:
        """Take the next picture in and train where the buffers are full.

        Raises:
            InputError: a site missing, a picture with other numbers of vectors, or values that are not finite.
            GazetteerError: training diverged. Both name the site.
        """
        if set(picture) != set(self.plan.sites):
            differing = sorted(site.slug for site in set(picture) ^ set(self.plan.sites))
            raise InputError(f"A picture of the stream must come with every site; differing: {', '.join(differing)}.")
        for site in self.plan.sites:
            if site not in self._lanes:
                self._lanes[site] = _Lane(site, picture[site], self.plan, self.device, self.on_log)
            self._lanes[site].take(picture[site])
        self.pictures += 1
        steps = self._step - self._saved_step
        if steps >= self.plan.config.checkpoint_every or time.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save()

    def drain(self) -> None:
        """After the last picture: train on what the buffers still hold; raises as `add`."""
        if not self._lanes:
            raise InputError("The stream held no pictures.")
        for lane in self._lanes.values():
            lane.drain()
        self._save()

    def measure(self, picture: Picture) -> None:
        """Count a held-out picture into the metrics, after `drain`."""
        for site, lane in self._lanes.items():
            self._evaluations.setdefault(site, MetricSums(lane.trainer.sae)).add(picture[site])

    def publish(
        self, metadata: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[Site, TrainResult]:
        """Write ``OUT/<site.slug>`` for every site and remove the state of the run."""
        results = {}
        for site, lane in self._lanes.items():
            evaluation = self._evaluations.get(site)
            folder = self.out / site.slug
            results[site] = publish(lane.trainer, folder, lane.identity, site, evaluation, metadata, dtype)
        shutil.rmtree(self.out / FOLDER, ignore_errors=True)
        return results

    @property
    def _step(self) -> int:
        return max(lane.trainer.step for lane in self._lanes.values())

    def _save(self) -> None:
        """Write every site's state to a folder of its own, then make it count."""
        root = self.out / FOLDER
        # No two states share a folder: one that counts is never written over.
        name = f"{self.pictures:09d}-{sum(lane.trainer.step for lane in self._lanes.values()):09d}"
        for site, lane in self._lanes.items():
            lane.save(root / name / site.slug)
        shapes = {site.slug: lane.shape for site, lane in self._lanes.items()}
        state = {"pictures": self.pictures, "folder": name, "plan": _plan_identity(self.plan), "sites": shapes}
        replace_file(root / "state.json", json.dumps(state, indent=1).encode())
        self._saved_step, self._saved_at = self._step, time.monotonic()
        for old in root.iterdir():
            if old.is_dir() and old.name != name:
                shutil.rmtree(old, ignore_errors=True)

    def _resume(self) -> None:
        path = self.out / FOLDER / "state.json"
        try:
            state = json.loads(path.read_bytes())
            expect_same(state["plan"], _plan_identity(self.plan), self.out)
            for site in self.plan.sites:
                cells, d, dtype = state["sites"][site.slug]
                like = torch.empty(cells, d, dtype=getattr(torch, dtype))
                lane = _Lane(site, like, self.plan, self.device, self.on_log)
                lane.restore(path.parent / state["folder"] / site.slug)
                self._lanes[site] = lane
            self.pictures, self._saved_step = int(state["pictures"]), self._step
        except (ValueError, KeyError, TypeError, AttributeError, OSError, SafetensorError) as error:
            raise InputError(f"The training state in {path.parent} is damaged; delete it to start over.") from error


class _Lane:
    """One site of the stream: its buffer and its trainer, which starts from the first vectors held."""

    def __init__(
        self, site: Site, like: Tensor, plan: StreamPlan, device: torch.device | str, on_log: OnSiteLog | None
    ) -> None:
        self.site, self.plan, self.on_log = site, plan, on_log
        self.cells, d = like.shape
        config, vectors = plan.config, self.cells * plan.pictures
        steps, streamed = config.total_steps(vectors), vectors // config.batch_size
        if steps > streamed:
            needed = -(-steps * config.batch_size // max(self.cells, 1))
            raise InputError(
                f"sae.steps={steps} at {site.slug} need {needed} pictures, but the stream has {plan.pictures}; "
                "raise sae.images or lower sae.steps."
            )
        self.identity = identity_of(config, site, d, vectors, plan.data_digest)
        self.buffer = ShuffleBuffer(like, plan.capacity, config.batch_size, seed_of(config.seed, site.slug))
        self.trainer = Trainer(d, config, steps, device)

    @property
    def done(self) -> bool:
        return self.trainer.step == self.trainer.steps

    @property
    def shape(self) -> list[Any]:
        """Cells a picture, width and type of the vectors."""
        return [self.cells, self.trainer.sae.config.d, str(self.buffer.table.dtype).removeprefix("torch.")]

    @property
    def pictures_wanted(self) -> int:
        """Pictures from the start until the steps are made; the buffer is full at each of them if there are enough."""
        vectors = (self.trainer.steps - 1) * self.plan.config.batch_size + self.plan.capacity
        return min(self.plan.pictures, -(-vectors // self.cells))

    def take(self, vectors: Tensor) -> None:
        if len(vectors) != self.cells:
            raise InputError(f"A picture at {self.site.slug} has {len(vectors)} vectors; the first had {self.cells}.")
        while len(vectors) > 0 and not self.done:
            vectors = self.buffer.fill(vectors)
            if self.buffer.full:
                self._advance()

    def drain(self) -> None:
        while self.buffer.held >= self.buffer.batch_size and not self.done:
            self._advance()

    def _advance(self) -> None:
        trainer = self.trainer
        try:
            if trainer.step == 0:
                trainer.start(self.buffer.sample(trainer.config.median_vectors))
            logged = len(trainer.history)
            trainer.advance(self.buffer.draw())
        except GazetteerError as error:
            raise type(error)(f"Training the SAE at {self.site.slug} stopped: {error}") from error
        if self.on_log is not None and len(trainer.history) > logged:
            self.on_log(self.site, trainer.history[-1])

    def save(self, stem: Path) -> None:
        write_tensors(stem.with_name(f"{stem.name}.buffer"), self.buffer.state())
        if self.trainer.step > 0:
            self.trainer.save(stem.with_name(f"{stem.name}.training"), self.identity)

    def restore(self, stem: Path) -> None:
        self.buffer.restore(load_tensors(stem.with_name(f"{stem.name}.buffer").read_bytes()))
        training = stem.with_name(f"{stem.name}.training")
        if training.exists():
            self.trainer.restore(read_snapshot(training))


def finished_stream(plan: StreamPlan, out: Path | str) -> dict[Site, TrainResult] | None:
    """The results `out` already holds for this plan, or None when there is something left to train.

    Raises:
        InputError: `out` holds autoencoders of another run.
    """
    out = Path(out)
    if (out / FOLDER).exists():
        return None
    results = {}
    for site in plan.sites:
        if (out / site.slug / CONFIG).exists():
            data = (read_config(out / site.slug).get("training") or {}).get("data") or {}
            wanted = identity_of(plan.config, site, data.get("d", 0), data.get("vectors", 0), plan.data_digest)
            results[site] = finished(out / site.slug, wanted)
    return results if len(results) == len(plan.sites) else None


def _plan_identity(plan: StreamPlan) -> dict[str, Any]:
    identity = identity_of(plan.config, None, 0, plan.pictures, plan.data_digest)
    return identity | {"site": ", ".join(site.slug for site in plan.sites)}
