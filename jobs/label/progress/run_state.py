"""Where a run stands, kept in ``_meta/progress.json`` by the process that drives it; any machine can read it there."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.storage.runlock import machine

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two writes: a file that is much older than that belongs to a process that died."""
SOON = 1.0
"""Seconds at most until a committed shard is written, so that its pictures are counted nearly when it is."""


class RunState:
    """Written whole at every change of stage, at the end, and in between every `interval` seconds and after commits.

    Args:
        write: puts a dict where readers look, atomically.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None], interval: float = INTERVAL) -> None:
        self._write, self._interval = write, interval
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stage_start = time.monotonic()
        self._made, self._news, self._written = 0, False, time.monotonic()
        self._state: dict[str, Any] = {
            "state": "running", "error": None, "stage": "plan",
            "shards": {"done": 0, "total": None, "with_failures": 0},
            "images": {"done": 0, "total": None, "failed": 0},
            "images_per_second": None, "seconds_left": None,
            "process": os.getpid(), "host": socket.gethostname(), "machine": machine(), "started": _now(),
            "interval": interval,
        }  # fmt: skip

    def start(self) -> None:
        """Begin to write, and go on until `end`."""
        self._thread = threading.Thread(target=self._beat, name="progress.json", daemon=True)
        self.publish()
        self._thread.start()

    def enter(self, stage: str, shards: dict[str, int], images: dict[str, int]) -> None:
        """A stage begins: its name, and ``done``, ``total`` and what failed of the whole run's shards and pictures."""
        with self._lock:
            self._stage_start, self._made = time.monotonic(), 0
            self._state |= {"stage": stage, "shards": dict(shards), "images": dict(images)}
            self._state |= {"images_per_second": None, "seconds_left": None}
        self.publish()

    def reduce(self) -> None:
        """Every shard is committed; the final tables are being made."""
        with self._lock:
            self._state |= {"stage": "reduce", "images_per_second": None, "seconds_left": None}
        self.publish()

    def shard(self, images: int, failures: int) -> None:
        """One more shard is committed, with so many pictures and so many that failed."""
        with self._lock:
            shards, pictures = self._state["shards"], self._state["images"]
            shards["done"] += 1
            shards["with_failures"] += failures > 0
            pictures["done"] += images
            pictures["failed"] += failures
            self._made += images + failures
            rate = self._made / max(time.monotonic() - self._stage_start, 1e-9)
            left = pictures["total"] - pictures["done"] - pictures["failed"]
            self._state["images_per_second"] = round(rate, 3)
            self._state["seconds_left"] = round(max(left, 0) / rate, 1) if rate else None
            self._news = True

    @property
    def seconds_left(self) -> float | None:
        """The estimate, while there is one."""
        with self._lock:
            left: float | None = self._state["seconds_left"]
            return left

    def end(self, state: str, error: str | None = None) -> None:
        """Write the last state (``complete``, ``stopped`` or ``failed``) and stop writing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._state |= {"state": state, "error": error, "images_per_second": None, "seconds_left": None}
        self.publish()

    def publish(self) -> None:
        """Write now; a storage that refuses is a warning, for the run itself will meet it at its next commit."""
        with self._lock:
            content = {**self._state, "updated": _now()}
            content |= {"shards": dict(content["shards"]), "images": dict(content["images"])}
            self._news, self._written = False, time.monotonic()
        try:
            self._write(content)
        except GazetteerError as error:
            log.warning("progress.json could not be written: %s", error)

    def _beat(self) -> None:
        while not self._stop.wait(min(self._interval, SOON)):
            if self._news or time.monotonic() - self._written >= self._interval:
                self.publish()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
