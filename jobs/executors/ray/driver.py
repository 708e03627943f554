"""The driver of a task on Ray: pulls slices of jobs through pools of workers, whatever dies meanwhile.

Every wait has an end: a worker that does not start or answer in time is replaced. Items that keep losing their
worker are found by halving and recorded; what was lost with a node is done again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from gazetteer.data.core.errors import GazetteerError, first_line
from gazetteer.data.tables.provenance import package_versions
from gazetteer.jobs.config.pools import LimitConfig
from gazetteer.jobs.executors.ray.actor_pool import ActorPool, Pending, ShardSlice
from gazetteer.jobs.executors.ray.session import Session
from gazetteer.jobs.executors.stop import check_stop
from gazetteer.jobs.executors.task import Done, Job, Lost, Task

log = logging.getLogger(__name__)

FAILED_STARTS = 4
"""Workers, per worker, that may die or hang while they load, in a row, before the run gives up."""

TICK = 2.0
"""Seconds after which a wait looks up."""

FETCH_SECONDS = 600.0
"""A result that takes longer on its way from another node is made again."""

LOADING = 8
"""Workers of a pool that load their models at once, to begin with; afterwards as many as have loaded: what they read
from a shared file system comes to each node once, and the others find it in memory."""

GROWTH_SECONDS = 10.0
"""Between two looks for nodes that have joined."""

REDONE = 50
"""How often a slice may start over because its payload was lost with a node, not through its own doing."""


class Driver:
    """One task's jobs on pools that outlive it."""

    def __init__(
        self,
        session: Session,
        task: Task,
        shared: Any,
        jobs: Sequence[Job],
        done: Done,
        pools: list[ActorPool],
        limits: LimitConfig,
        grow: Callable[[], None] = lambda: None,
    ) -> None:
        self.grow, self.looked = grow, time.monotonic()
        self.session, self.ray, self.task, self.shared, self.done = session, session.ray, task, shared, done
        self.pools, self.limits = pools, limits
        for pool in pools:
            pool.waiting.clear()
        pools[0].waiting.extend((ShardSlice(job, 0, len(job.items)), job.items) for job in jobs)
        self.parts: dict[str, dict[int, tuple[int, Any]]] = {}
        self.open = len(jobs)
        halvings = math.ceil(math.log2(max(1, *(len(job.items) for job in jobs)))) + 1
        workers = sum(pool.config.workers for pool in pools)
        # One poison item a worker may cost this many deaths in a row, and a shard may hold nothing else; more than that
        # without a success is no item's doing.
        self.allowed_deaths = self.deaths_left = workers * (limits.attempts * halvings + 1)
        self.allowed_losses = self.losses_left = 2 * workers * max(len(job.items) for job in jobs)
        self.allowed_starts = self.starts_left = workers * FAILED_STARTS

    def run(self) -> None:
        """Until every job is handed to `done`, or GazetteerError. Nothing is left running on the pools."""
        try:
            while self.open:
                self._dispatch()
                self._collect()
        finally:
            self._settle()

    def _dispatch(self) -> None:
        """Give every pool work, the last first, so that what is nearly done is done before more is begun."""
        for index in reversed(range(len(self.pools))):
            pool, after = self.pools[index], self.pools[index + 1 : index + 2]
            while pool.waiting and pool.idle and pool.working < pool.config.workers and not any(c.full for c in after):
                self._submit(pool, pool.idle.pop(), *pool.waiting.popleft())
            # Later pools load their models while the first one makes something for them.
            wanted = min(pool.config.workers, max(self.open, len(pool.waiting)))
            while pool.actors < wanted and pool.loading < max(LOADING, pool.actors - pool.loading):
                self._start(pool)

    def _start(self, pool: ActorPool) -> None:
        from gazetteer.jobs.executors.ray.worker import Actor

        actor_class = self.ray.remote(max_restarts=0, max_task_retries=0, **pool.options(self.session.environment))(
            Actor
        )
        actor = actor_class.remote(self.shared, pool.config.stages, pool.config.memory_gib)
        pool.calls[actor.start.remote()] = Pending(actor, None, deadline=time.monotonic() + self.limits.start_seconds)

    def _submit(self, pool: ActorPool, actor: Any, work: ShardSlice, given: Any) -> None:
        seconds = self.task.item_seconds * len(work)
        whole = work.job.id if pool is self.pools[-1] and len(work) == len(work.job.items) else None
        metadata, payload = actor.run.options(num_returns=2).remote(given, whole)
        pool.calls[metadata] = Pending(actor, work, given, payload, time.monotonic() + seconds if seconds else math.inf)

    def _collect(self) -> None:
        """Wait for the first call to end or to run out of time; deal with all that have."""
        deadlines = [call.deadline for _, call in self._calls()]
        references = [reference for reference, _ in self._calls()]
        left = min(deadlines) - time.monotonic()
        timeout = max(0.0, min(left, TICK))
        ready, _ = self.ray.wait(references, num_returns=1, timeout=timeout)
        self._look_up()
        # The others that have ended by now, so that one slow recording does not keep several workers waiting.
        ready, _ = self.ray.wait(references, num_returns=len(references), timeout=0)
        finished = []
        for index, pool in enumerate(self.pools):
            for reference in [reference for reference in ready if reference in pool.calls]:
                finished += self._ended(index, pool.calls.pop(reference), reference)
            now = time.monotonic()
            for reference in [reference for reference, call in pool.calls.items() if call.deadline <= now]:
                self._out_of_time(pool, pool.calls.pop(reference))
        # Workers get their next slices before these are recorded, so that they never wait for the disk.
        self._dispatch()
        for work, payload in finished:
            try:
                result = self._fetched(payload)
            except self.ray.exceptions.RayError as error:
                self._again(work, error)
            else:
                self._keep(work, result)

    def _fetched(self, payload: Any) -> Any:
        """What lies behind a reference; a RayError when it does not come."""
        end = time.monotonic() + FETCH_SECONDS
        while not self.ray.wait([payload], timeout=TICK)[0]:
            self._look_up()
            if time.monotonic() >= end:
                raise self.ray.exceptions.GetTimeoutError(f"it did not arrive within {FETCH_SECONDS:g} s")
        return self.ray.get(payload)

    def _look_up(self) -> None:
        """Between waits: has Ray been lost, or was this process asked to end?"""
        check_stop()
        self.session.check()
        if time.monotonic() - self.looked >= GROWTH_SECONDS:
            self.looked = time.monotonic()
            self.grow()

    def _calls(self) -> Iterator[tuple[Any, Pending]]:
        for pool in self.pools:
            yield from pool.calls.items()

    def _ended(self, index: int, call: Pending, reference: Any) -> list[tuple[ShardSlice, Any]]:
        """Deal with a call that ended; returns the work and its payload when it has passed the last pool."""
        pool = self.pools[index]
        try:
            metadata = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GazetteerError):
                raise error.cause from error
            if call.work is not None and isinstance(error.cause, self.ray.exceptions.ObjectLostError):
                pool.idle.append(call.actor)
                self._again(call.work, error.cause)
            else:
                self._died(pool, call, type(error.cause).__name__, _reason(error.cause))
            return []
        except self.ray.exceptions.RayError as error:
            # A node that died, or what the worker was given went down with one: not the fault of the items.
            lost = _node_died(error) or isinstance(error, self.ray.exceptions.ObjectLostError)
            self._died(pool, call, "" if lost else "WorkerDied", _reason(error))
            return []
        if call.work is None:
            check_versions(metadata)
            self.starts_left = self.allowed_starts
            pool.idle.append(call.actor)
            return []
        self.deaths_left, self.losses_left = self.allowed_deaths, self.allowed_losses
        pool.idle.append(call.actor)
        if index + 1 == len(self.pools):
            return [(call.work, call.payload)]
        self.pools[index + 1].waiting.append((call.work, call.payload))
        return []

    def _out_of_time(self, pool: ActorPool, call: Pending) -> None:
        if call.work is None:
            message = f"a worker of {pool.config.name} did not start within {self.limits.start_seconds:g} s"
        else:
            seconds = self.task.item_seconds * len(call.work)
            message = f"{pool.config.name} took longer than {seconds:g} s for {len(call.work)} items"
        self._died(pool, call, "TimeLimit", message)

    def _died(self, pool: ActorPool, call: Pending, error: str, message: str) -> None:
        """Replace a worker, and do its work again, in halves when it has cost too many; no `error`: not its fault."""
        self.ray.kill(call.actor)
        work = call.work
        log.warning("%s lost a worker (%s: %s).", _shown(pool, work), error or "lost node", message)
        if error and work is None:
            self.starts_left -= 1
        elif error:
            self.deaths_left -= 1
        if min(self.deaths_left, self.starts_left, self.losses_left) <= 0:
            raise GazetteerError(
                f"Workers of {pool.config.name} keep dying without finishing anything; the last one: {error}: {message}"
            )
        if work is None:
            return
        if not error:
            self._again(work, message)
            return
        work = replace(work, deaths=work.deaths + 1, tried=work.tried + 1)
        if work.deaths < self.limits.attempts:
            pool.waiting.appendleft((work, call.given))
        elif len(work) > 1:
            for half in reversed(work.halves()):
                self.pools[0].waiting.appendleft((half, half.items))
        else:
            self.deaths_left, self.losses_left = self.allowed_deaths, self.losses_left - 1
            lost = Lost(pool.config.stages, error, message, work.tried)
            result = self.task.lost(work.items[0], lost)
            # As its worker would have: a job of one item is a whole one.
            self._keep(work, self.task.sealed(work.job.id, result) if len(work.job.items) == 1 else result)

    def _again(self, work: ShardSlice, reason: object) -> None:
        """Start over work that lost what it had become."""
        if work.redone >= REDONE:
            raise GazetteerError(f"Shard {work.job.id} was lost {REDONE} times on its way; the last time: {reason}")
        work = replace(work, redone=work.redone + 1)
        self.pools[0].waiting.appendleft((work, work.items))

    def _keep(self, work: ShardSlice, result: Any) -> None:
        parts = self.parts.setdefault(work.job.id, {})
        parts[work.start] = (work.stop, result)
        if sum(stop - start for start, (stop, _) in parts.items()) == len(work.job.items):
            results = [parts[start][1] for start in sorted(parts)]
            del self.parts[work.job.id]
            joined = len(results) > 1
            self.done(work.job, self.task.sealed(work.job.id, self.task.join(results)) if joined else results[0])
            self.open -= 1

    def _settle(self) -> None:
        """After an error: end the workers that still work, so that nothing of this task goes on."""
        if self.session.lost:
            return
        for pool in self.pools:
            for call in pool.calls.values():
                if call.work is not None or self.open:
                    self.ray.kill(call.actor)
            pool.calls = {} if self.open else {r: b for r, b in pool.calls.items() if b.work is None}


def _node_died(error: Exception) -> bool:
    return getattr(error, "preempted", False) or "node has died" in str(error)


def check_versions(metadata: dict[str, Any]) -> None:
    """GazetteerError when a worker's packages are not the driver's: tables must not depend on who made them."""
    ours, theirs = package_versions(), metadata["versions"]
    differing = sorted(p for p in ours.keys() | theirs.keys() if ours.get(p) != theirs.get(p))
    if differing:
        changes = ", ".join(f"{p} {theirs.get(p, 'missing')} (here {ours.get(p, 'missing')})" for p in differing)
        raise GazetteerError(
            f"The node {metadata['host']} has other packages: {changes}; install the same ones on every node."
        )


def _shown(pool: ActorPool, work: ShardSlice | None) -> str:
    return f"{pool.config.name}" if work is None else f"{pool.config.name}, shard {work.job.id}"


def _reason(error: BaseException) -> str:
    """One line of at most 300 characters: of Ray's errors the lines that say why, not which actor it was."""
    if isinstance(error, Exception) and type(error).__module__.startswith("ray."):
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
        return " ".join(lines)[:300] or type(error).__name__
    return first_line(error)[:300]
