"""Do jobs on Ray Core actors: a private Ray on this machine, a cluster that was named, or the caller's own session."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig
from gazetteer.jobs.executors.ray.actor_pool import ActorPool
from gazetteer.jobs.executors.ray.driver import Driver
from gazetteer.jobs.executors.ray.placement import Node, place
from gazetteer.jobs.executors.ray.session import Session, ray_session
from gazetteer.jobs.executors.ray.watch import LastWords, say
from gazetteer.jobs.executors.task import Done, Job, Task

log = logging.getLogger(__name__)


@contextmanager
def ray_pools(
    pools: Sequence[PoolConfig],
    threads: int,
    address: str = "",
    limits: LimitConfig = LimitConfig(),
    last_words: LastWords = say,
    later: bool = False,
) -> Iterator[Pools]:
    """Pools of workers on Ray (`gazetteer.jobs.executors.ray.session.ray_session`).

    Args:
        later: look for room when the first task comes that does not bring its own workers.

    Raises:
        InputError: the cluster is not named, cannot be reached, lacks a token or has no room for the pools; the
            sentence names what is missing.
    """
    with ray_session(pools, threads, address, last_words) as session:
        patience = limits.wait_seconds if address else 0.0
        made = Pools(session, pools, limits, patience)
        if not later:
            made.place()
        try:
            yield made
        finally:
            if patience:
                _request(())  # what was asked of the autoscaler may go again
            made.close()


class Pools:
    """The actors of every pool; they outlive one call of `run_ray`, so that models are loaded once per run.

    Attributes:
        asked, serving: the pools as they were asked for, of the run and of the task that is served.
        limits: when what does not work is given up.
        patience: seconds for which room is waited for, the first time.
    """

    def __init__(self, session: Session, asked: Sequence[PoolConfig], limits: LimitConfig, patience: float) -> None:
        self.session, self.limits, self.patience = session, limits, patience
        self._places: tuple[Sequence[PoolConfig], Sequence[Sequence[str]]] | None = None
        self.asked = self.serving = list(asked)
        self.known = _alive(session.ray)
        self.actor_pools: list[ActorPool] = []
        self.task: Task | None = None
        self.shared: Any = None

    @property
    def ray(self) -> Any:
        """The module."""
        return self.session.ray

    def place(self) -> tuple[Sequence[PoolConfig], Sequence[Sequence[str]]]:
        """The run's pools with their sizes, and per pool the node of every worker; InputError without room for them."""
        if self._places is None:
            self._places = _placed(self.ray, self.asked, self.patience)
        return self._places

    def serve(self, task: Task) -> list[ActorPool]:
        """Actor pools for `task` from now on; workers of another task end.

        A task without stages is done by the first pool alone, or by the pool that it brings along.
        """
        if task is not self.task:
            self.close()
            patience = 0.0 if self._places else self.patience
            pools, nodes = _placed(self.ray, [task.pool], patience) if task.pool else self.place()
            count = len(pools) if task.stages else 1
            self.serving = [task.pool] if task.pool else self.asked
            self.actor_pools = [
                ActorPool(pool, nodes=on) for pool, on in zip(pools[:count], nodes[:count], strict=True)
            ]
            self.task, self.shared = task, self.ray.put(task)
        return self.actor_pools

    def grow(self) -> None:
        """Give pools without a fixed size (``workers: 0``) room on nodes that have joined; none ever shrinks."""
        alive = _alive(self.ray)
        if alive <= self.known:
            return
        self.known = alive
        try:
            pools, nodes = _placed(self.ray, self.serving, 0.0)
        except InputError:  # others have gone meanwhile; what works goes on
            return
        # Pools beyond those that serve are placed as well: what trains beside them holds its places.
        for asked, now, pool, on in zip(self.serving, self.actor_pools, pools, nodes, strict=False):
            if asked.workers == 0 and pool.workers > now.config.workers:
                log.info("%s grows from %d to %d workers", pool.name, now.config.workers, pool.workers)
                now.config, now.nodes = pool, on

    def close(self) -> None:
        """End the workers of this task; a session that was not started here would keep them."""
        if not self.session.lost:
            for pool in self.actor_pools:
                for actor in [*pool.idle, *(call.actor for call in pool.calls.values())]:
                    self.ray.kill(actor)
        self.actor_pools, self.task, self.shared = [], None, None


def run_ray(task: Task, jobs: Sequence[Job], done: Done, pools: Pools) -> None:
    """Run every job through the pools and hand each result to `done` in the order they finish.

    What is in flight is bounded by the number of workers, not of jobs.

    Raises:
        GazetteerError: from a worker or from `done`, or when workers die without ever finishing anything.
    """
    if jobs:
        actor_pools = pools.serve(task)
        Driver(pools.session, task, pools.shared, jobs, done, actor_pools, pools.limits, pools.grow).run()


def _alive(ray: Any) -> frozenset[str]:
    """The nodes that are there."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def _placed(
    ray: Any, pools: Sequence[PoolConfig], patience: float
) -> tuple[Sequence[PoolConfig], Sequence[Sequence[str]]]:
    """The pools with their sizes and nodes, once there is room for them; InputError when there is none in time."""
    end = time.monotonic() + patience
    if patience:
        _request(pools)
    while True:
        alive = [node for node in ray.nodes() if node["Alive"]]
        nodes = [Node(dict(node["Resources"]), dict(node.get("Labels") or {})) for node in alive]
        try:
            placed = place(pools, nodes)
            return placed.pools, [[alive[index]["NodeID"] for index in on] for on in placed.nodes]
        except InputError:
            if time.monotonic() >= end:
                raise
            time.sleep(min(1.0, max(0.05, patience / 100)))


def _request(pools: Sequence[PoolConfig]) -> None:
    """Ask the cluster's autoscaler to hold room for the pools, instead of what was asked before."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(pool.demand) for pool in pools for _ in range(max(1, pool.workers)) if pool.demand])
