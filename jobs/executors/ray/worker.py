"""The actor that holds a worker on a Ray node."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from typing import Any

from gazetteer.data.tables.provenance import package_versions
from gazetteer.jobs.executors.task import Task, Worker


class Inhabited:
    """Holds what `build` makes and calls its methods, one after the other (`Companion`)."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self.build, self.inside = build, None

    def start(self) -> dict[str, Any]:
        """Build; says where it runs and with which versions."""
        self.inside = self.build()
        return {"host": socket.gethostname(), "versions": package_versions()}

    def call(self, method: str, *given: Any) -> Any:
        """What a method of it returns."""
        return getattr(self.inside, method)(*given)


class Actor:
    """Carries out some stages of a task; its models are loaded by `start`, so that what is wrong arrives as an error.

    A result comes as two objects: a small one the driver waits for, and the payload, which stays where it was made
    until the next stage or the driver fetches it.
    """

    def __init__(self, task: Task, stages: tuple[str, ...], memory_gib: float) -> None:
        self.task, self.stages, self.memory_gib = task, stages, memory_gib
        self.worker: Worker | None = None

    def start(self) -> dict[str, Any]:
        """Load everything; says where it runs and with which versions."""
        self.worker = self.task.worker(self.stages)
        if self.memory_gib:
            _limit_memory(int(self.memory_gib * 2**30))
        return {"host": socket.gethostname(), "versions": package_versions()}

    def run(self, given: Any, whole: str | None = None) -> tuple[dict[str, Any], Any]:
        """({}, result) for items, or for what the stage before made of them; sealed, of the whole job of that id."""
        assert self.worker is not None
        result = self.worker.run(given)
        return {}, result if whole is None else self.task.sealed(whole, result)


def _limit_memory(more: int) -> None:
    """Let this process allocate `more` bytes beyond what it has; then allocations fail with MemoryError."""
    try:
        with open("/proc/self/status") as status:
            has = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    except (OSError, StopIteration):  # not Linux
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = has + more if hard == resource.RLIM_INFINITY else min(has + more, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
