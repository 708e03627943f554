"""The driver of a task on Ray: pulls pieces of jobs through pools of workers, whatever dies meanwhile.

Every wait has an end: a worker that does not start or answer in time is replaced. Items that keep losing their
worker are found by halving and recorded; what was lost with a node is done again.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.tables.provenance import package_versions
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig
from gazetteer.jobs.executors.task import Done, Job, Lost, Task

log = logging.getLogger(__name__)

FAILED_STARTS = 4
"""Workers, per worker, that may die or hang while they load, in a row, before the run gives up."""

REDONE = 50
"""How often a piece may start over because its payload was lost with a node, not through its own doing."""


@dataclass(frozen=True)
class Piece:
    """Some consecutive items of a job, [start, stop).

    Attributes:
        deaths: workers these very items took down.
        tried: how often each of them was tried in all, with others or alone.
        redone: how often the piece started over through no fault of its own.
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

    def halves(self) -> tuple[Piece, Piece]:
        """Both halves, each with a fresh budget of deaths."""
        middle = (self.start + self.stop) // 2
        return replace(self, stop=middle, deaths=0), replace(self, start=middle, deaths=0)


@dataclass
class Busy:
    """A call under way: who works on what, given what, since when it may take until when."""

    actor: Any
    piece: Piece | None
    given: Any = None
    payload: Any = None
    deadline: float = math.inf


@dataclass
class Crew:
    """The actors of one pool, and what waits for them.

    Attributes:
        waiting: pieces with what the stage before made of them (for the first pool: the items).
        busy: by the reference that tells of the end of the call; starting actors have no piece.
        idle: actors with nothing to do.
    """

    config: PoolConfig
    waiting: deque[tuple[Piece, Any]] = field(default_factory=deque)
    busy: dict[Any, Busy] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)

    @property
    def actors(self) -> int:
        """How many there are, starting ones included."""
        return len(self.busy) + len(self.idle)

    @property
    def working(self) -> int:
        """How many have a piece."""
        return sum(busy.piece is not None for busy in self.busy.values())

    @property
    def full(self) -> bool:
        """Whether the stage before should hold back: a worker's worth of payloads waits for each worker."""
        return len(self.waiting) >= self.config.workers


class Driver:
    """One task's jobs on crews that outlive it."""

    def __init__(
        self, ray: Any, task: Task, shared: Any, jobs: Sequence[Job], done: Done, crews: list[Crew], limits: LimitConfig
    ) -> None:
        self.ray, self.task, self.shared, self.done = ray, task, shared, done
        self.crews, self.limits = crews, limits
        for crew in crews:
            crew.waiting.clear()
        crews[0].waiting.extend((Piece(job, 0, len(job.items)), job.items) for job in jobs)
        self.parts: dict[str, dict[int, tuple[int, Any]]] = {}
        self.open = len(jobs)
        halvings = math.ceil(math.log2(max(1, *(len(job.items) for job in jobs)))) + 1
        workers = sum(crew.config.workers for crew in crews)
        # One poison item a worker may cost this many deaths in a row, and a shard may hold nothing else; more than that
        # without a success is no item's doing.
        self.allowed_deaths = self.deaths_left = workers * (limits.attempts * halvings + 1)
        self.allowed_losses = self.losses_left = 2 * workers * max(len(job.items) for job in jobs)
        self.allowed_starts = self.starts_left = workers * FAILED_STARTS

    def run(self) -> None:
        """Until every job is handed to `done`, or GazetteerError. Nothing is left running on the crews."""
        try:
            while self.open:
                self._dispatch()
                self._collect()
        finally:
            self._settle()

    def _dispatch(self) -> None:
        """Give every crew work, the last first, so that what is nearly done is done before more is begun."""
        for index in reversed(range(len(self.crews))):
            crew, after = self.crews[index], self.crews[index + 1 : index + 2]
            while crew.waiting and crew.idle and crew.working < crew.config.workers and not any(c.full for c in after):
                self._submit(crew, crew.idle.pop(), *crew.waiting.popleft())
            # Later pools load their models while the first one makes something for them.
            while crew.actors < min(crew.config.workers, max(self.open, len(crew.waiting))):
                self._start(crew)

    def _start(self, crew: Crew) -> None:
        pool = crew.config
        memory = {"memory": int(pool.memory_gib * 2**30)} if pool.memory_gib else {}
        labels = {"label_selector": dict(pool.labels)} if pool.labels else {}
        options = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "resources": dict(pool.resources), **memory, **labels}
        from gazetteer.jobs.executors.ray.worker import Actor

        actor_class = self.ray.remote(max_restarts=0, max_task_retries=0, **options)(Actor)
        actor = actor_class.remote(self.shared, pool.stages, pool.memory_gib)
        crew.busy[actor.start.remote()] = Busy(actor, None, deadline=time.monotonic() + self.limits.start_seconds)

    def _submit(self, crew: Crew, actor: Any, piece: Piece, given: Any) -> None:
        seconds = self.task.item_seconds * len(piece)
        told, payload = actor.run.options(num_returns=2).remote(given)
        crew.busy[told] = Busy(actor, piece, given, payload, time.monotonic() + seconds if seconds else math.inf)

    def _collect(self) -> None:
        """Wait for the first call to end or to run out of time; deal with all that have."""
        deadlines = [busy.deadline for _, busy in self._calls()]
        references = [reference for reference, _ in self._calls()]
        left = min(deadlines) - time.monotonic()
        timeout = None if left == math.inf else max(0.0, left)
        ready, _ = self.ray.wait(references, num_returns=1, timeout=timeout)
        # The others that have ended by now, so that one slow recording does not keep several workers waiting.
        ready, _ = self.ray.wait(references, num_returns=len(references), timeout=0)
        finished = []
        for crew_index, crew in enumerate(self.crews):
            for reference in [one for one in ready if one in crew.busy]:
                finished += self._ended(crew_index, crew.busy.pop(reference), reference)
            now = time.monotonic()
            for reference in [one for one, busy in crew.busy.items() if busy.deadline <= now]:
                self._out_of_time(crew, crew.busy.pop(reference))
        # Workers get their next pieces before these are recorded, so that they never wait for the disk.
        self._dispatch()
        for piece, payload in finished:
            try:
                result = self.ray.get(payload)
            except self.ray.exceptions.RayError as error:
                self._again(piece, error)
            else:
                self._keep(piece, result)

    def _calls(self) -> Iterator[tuple[Any, Busy]]:
        for crew in self.crews:
            yield from crew.busy.items()

    def _ended(self, index: int, busy: Busy, reference: Any) -> list[tuple[Piece, Any]]:
        """Deal with a call that ended; returns the piece and its payload when it has passed the last pool."""
        crew = self.crews[index]
        try:
            told = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GazetteerError):
                raise error.cause from error
            if busy.piece is not None and isinstance(error.cause, self.ray.exceptions.ObjectLostError):
                crew.idle.append(busy.actor)
                self._again(busy.piece, error.cause)
            else:
                self._died(crew, busy, type(error.cause).__name__, _reason(error.cause))
            return []
        except self.ray.exceptions.RayError as error:
            # A node that died, or what the worker was given went down with one: not the fault of the items.
            lost = _node_died(error) or isinstance(error, self.ray.exceptions.ObjectLostError)
            self._died(crew, busy, "" if lost else "WorkerDied", _reason(error))
            return []
        if busy.piece is None:
            check_versions(told)
            self.starts_left = self.allowed_starts
            crew.idle.append(busy.actor)
            return []
        self.deaths_left, self.losses_left = self.allowed_deaths, self.allowed_losses
        crew.idle.append(busy.actor)
        if index + 1 == len(self.crews):
            return [(busy.piece, busy.payload)]
        self.crews[index + 1].waiting.append((busy.piece, busy.payload))
        return []

    def _out_of_time(self, crew: Crew, busy: Busy) -> None:
        if busy.piece is None:
            message = f"a worker of {crew.config.name} did not start within {self.limits.start_seconds:g} s"
        else:
            seconds = self.task.item_seconds * len(busy.piece)
            message = f"{crew.config.name} took longer than {seconds:g} s for {len(busy.piece)} items"
        self._died(crew, busy, "TimeLimit", message)

    def _died(self, crew: Crew, busy: Busy, error: str, message: str) -> None:
        """Replace a worker, and do its piece again, in halves when it has cost too many; no `error`: not its fault."""
        self.ray.kill(busy.actor)
        piece = busy.piece
        log.warning("%s lost a worker (%s: %s).", _shown(crew, piece), error or "lost node", message)
        if error and piece is None:
            self.starts_left -= 1
        elif error:
            self.deaths_left -= 1
        if min(self.deaths_left, self.starts_left, self.losses_left) <= 0:
            raise GazetteerError(
                f"Workers of {crew.config.name} keep dying without finishing anything; the last one: {error}: {message}"
            )
        if piece is None:
            return
        if not error:
            self._again(piece, message)
            return
        piece = replace(piece, deaths=piece.deaths + 1, tried=piece.tried + 1)
        if piece.deaths < self.limits.attempts:
            crew.waiting.appendleft((piece, busy.given))
        elif len(piece) > 1:
            for half in reversed(piece.halves()):
                self.crews[0].waiting.appendleft((half, half.items))
        else:
            self.deaths_left, self.losses_left = self.allowed_deaths, self.losses_left - 1
            lost = Lost(crew.config.stages, error, message, piece.tried)
            self._keep(piece, self.task.lost(piece.items[0], lost))

    def _again(self, piece: Piece, reason: object) -> None:
        """Start a piece over that lost what it had become."""
        if piece.redone >= REDONE:
            raise GazetteerError(f"Shard {piece.job.id} was lost {REDONE} times on its way; the last time: {reason}")
        piece = replace(piece, redone=piece.redone + 1)
        self.crews[0].waiting.appendleft((piece, piece.items))

    def _keep(self, piece: Piece, result: Any) -> None:
        parts = self.parts.setdefault(piece.job.id, {})
        parts[piece.start] = (piece.stop, result)
        if sum(stop - start for start, (stop, _) in parts.items()) == len(piece.job.items):
            results = [parts[start][1] for start in sorted(parts)]
            del self.parts[piece.job.id]
            self.done(piece.job, results[0] if len(results) == 1 else self.task.join(results))
            self.open -= 1

    def _settle(self) -> None:
        """After an error: end the workers that still work, so that nothing of this task goes on."""
        for crew in self.crews:
            for busy in crew.busy.values():
                if busy.piece is not None or self.open:
                    self.ray.kill(busy.actor)
            crew.busy = {} if self.open else {r: b for r, b in crew.busy.items() if b.piece is None}


def _node_died(error: Exception) -> bool:
    return getattr(error, "preempted", False) or "node has died" in str(error)


def check_versions(told: dict[str, Any]) -> None:
    """GazetteerError when a worker's packages are not the driver's: tables must not depend on who made them."""
    mine, theirs = package_versions(), told["versions"]
    differing = sorted(p for p in mine.keys() | theirs.keys() if mine.get(p) != theirs.get(p))
    if differing:
        changes = ", ".join(f"{p} {theirs.get(p, 'missing')} (here {mine.get(p, 'missing')})" for p in differing)
        raise GazetteerError(
            f"The node {told['host']} has other packages: {changes}; install the same ones on every node."
        )


def _shown(crew: Crew, piece: Piece | None) -> str:
    return f"{crew.config.name}" if piece is None else f"{crew.config.name}, shard {piece.job.id}"


def _reason(error: BaseException) -> str:
    """One line of at most 300 characters: of Ray's errors the lines that say why, not which actor it was."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip() and not line.startswith("\t")]
    if isinstance(error, Exception) and type(error).__module__.startswith("ray."):
        return " ".join(lines)[:300] or type(error).__name__
    return (lines or [type(error).__name__])[0][:300]
