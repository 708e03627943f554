"""What an executor drives: jobs made of items, done by workers, whose results can be joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A unit that is done and recorded as a whole: an id and its items, in a fixed order."""

    id: str
    items: tuple[Any, ...]


class Worker(Protocol):
    """Holds the models; built once per process, then given items many times."""

    def run(self, items: Sequence[Any]) -> Any:
        """The result for these items. GazetteerError means that no retry can help."""


@dataclass(frozen=True)
class Task:
    """How to do a kind of job; picklable, so that it can travel to other machines.

    Attributes:
        build: makes the worker, inside the process that uses it.
        join: the result of items from the results of consecutive parts of them.
        lost: the result that records one item as failed, from (item, message, attempts), for items that
            took their worker down with them.
    """

    build: Callable[[], Worker]
    join: Callable[[Sequence[Any]], Any]
    lost: Callable[[Any, str, int], Any]


Done = Callable[[Job, Any], None]
