"""What an executor drives: jobs made of items, done by workers stage by stage, whose results can be joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gazetteer.jobs.config.pools import PoolConfig


@dataclass(frozen=True)
class Job:
    """A unit that is done and recorded as a whole: an id and its items, in a fixed order."""

    id: str
    items: tuple[Any, ...]


class Worker(Protocol):
    """Holds the models; built once per process, then given items many times."""

    def run(self, items: Any) -> Any:
        """The result for these items, or for what the stage before made of them.

        GazetteerError means that no retry can help.
        """


@dataclass(frozen=True)
class Lost:
    """Why an item has no result: its worker was lost to it, again and again.

    Attributes:
        stages: those its worker carried out.
        error: ``WorkerDied``, ``TimeLimit``, or the name of an exception.
        message: in words.
        attempts: how often the item was tried, alone or with others.
    """

    stages: tuple[str, ...]
    error: str
    message: str
    attempts: int


@dataclass(frozen=True)
class Task:
    """How to do a kind of job; picklable, so that it can travel to other machines.

    Attributes:
        build: makes the worker, inside the process that uses it; takes the stages it has to carry out, where
            the task has stages.
        join: the result of items from the results of consecutive parts of them.
        lost: the result that records one item as failed, for items that took their worker down with them.
        stages: names of consecutive stages that may be done by different workers; empty: there is one.
        item_seconds: an item that takes longer has failed; 0 sets no limit.
        seal: what is handed over of a whole job's result, made of its id and the result by the worker that finished it
            (by the driver, where the job was done in parts); must be repeatable, for a worker may die of it.
        pool: the workers that do it instead of the run's own, which end; they are placed when the task begins.
    """

    build: Callable[..., Worker]
    join: Callable[[Sequence[Any]], Any]
    lost: Callable[[Any, Lost], Any]
    stages: tuple[str, ...] = ()
    item_seconds: float = 0.0
    seal: Callable[[str, Any], Any] | None = None
    pool: PoolConfig | None = None

    def sealed(self, job: str, result: Any) -> Any:
        """What is handed over of a whole job's result."""
        return result if self.seal is None else self.seal(job, result)

    def worker(self, stages: tuple[str, ...] = ()) -> Worker:
        """A worker for `stages`, by default all of them."""
        return self.build(stages or self.stages) if self.stages else self.build()


class Companion(Protocol):
    """An object that lives beside the workers and is sent calls, which it carries out one after the other."""

    def send(self, method: str, *given: Any) -> Callable[[], Any]:
        """Begin a call; what is returned waits for its result, and raises its GazetteerError or that it was lost."""


Done = Callable[[Job, Any], None]
