"""What waits for the actors of a pool, what they work on, and which of them have nothing to do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.task import Job


@dataclass(frozen=True)
class ShardSlice:
    """Some consecutive items of a job, [start, stop).

    Attributes:
        deaths: workers these very items took down.
        tried: how often each of them was tried in all, with others or alone.
        redone: how often it started over through no fault of its own.
    """

    job: Job
    start: int
    stop: int
    deaths: int = 0
    tried: int = 0
    redone: int = 0

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def items(self) -> tuple[Any, ...]:
        """The items themselves."""
        return self.job.items[self.start : self.stop]

    def halves(self) -> tuple[ShardSlice, ShardSlice]:
        """Both halves, each with a fresh budget of deaths."""
        middle = (self.start + self.stop) // 2
        return replace(self, stop=middle, deaths=0), replace(self, start=middle, deaths=0)


@dataclass
class Pending:
    """A call under way: who works on what, given what, since when it may take until when."""

    actor: Any
    work: ShardSlice | None
    given: Any = None
    payload: Any = None
    deadline: float = math.inf


@dataclass
class ActorPool:
    """The actors of one pool, and what waits for them.

    Attributes:
        waiting: slices with what the stage before made of them (for the first pool: the items).
        calls: by the reference that tells of the end of the call; starting actors have no work.
        idle: actors with nothing to do.
        nodes: one a worker, where it was found to have room; empty leaves it to Ray, which fills a node first.
        started: how many actors were started so far.
    """

    config: PoolConfig
    waiting: deque[tuple[ShardSlice, Any]] = field(default_factory=deque)
    calls: dict[Any, Pending] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    nodes: Sequence[str] = ()
    started: int = 0

    def options(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """What Ray is asked for each of its actors; `environment`: variables they need and would not inherit."""
        pool = self.config
        memory = {"memory": int(pool.memory_gib * 2**30)} if pool.memory_gib else {}
        labels = {"label_selector": dict(pool.labels)} if pool.labels else {}
        given = {"runtime_env": {"env_vars": dict(environment)}} if environment else {}
        asked = {"num_cpus": pool.cpus, "num_gpus": pool.gpus or 0, "resources": dict(pool.resources)}
        return asked | memory | labels | given | self._affinity()

    def _affinity(self) -> dict[str, Any]:
        """Where the next actor goes: the nodes of the plan in turn, another one when that is gone or taken."""
        if not self.nodes:
            return {}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self.nodes[self.started % len(self.nodes)]
        self.started += 1
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)}

    @property
    def actors(self) -> int:
        """How many there are, starting ones included."""
        return len(self.calls) + len(self.idle)

    @property
    def loading(self) -> int:
        """How many load their models."""
        return sum(call.work is None for call in self.calls.values())

    @property
    def working(self) -> int:
        """How many have a work."""
        return sum(call.work is not None for call in self.calls.values())

    @property
    def full(self) -> bool:
        """Whether the stage before should hold back: a worker's worth of payloads waits for each worker."""
        return len(self.waiting) >= self.config.workers
