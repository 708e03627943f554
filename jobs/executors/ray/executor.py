"""Do jobs on Ray Core actors: a private Ray on this machine, or a cluster that was named."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig
from gazetteer.jobs.executors.ray.actor_pool import ActorPool
from gazetteer.jobs.executors.ray.driver import Driver
from gazetteer.jobs.executors.ray.placement import Node, place
from gazetteer.jobs.executors.ray.security import secure_ray
from gazetteer.jobs.executors.task import Done, Job, Task

log = logging.getLogger(__name__)


@contextmanager
def ray_pools(
    pools: Sequence[PoolConfig], threads: int, address: str = "", limits: LimitConfig = LimitConfig()
) -> Iterator[Pools]:
    """Pools of workers on Ray: private to this process unless `address` names a cluster.

    Token authentication is on and telemetry off; a stray RAY_ADDRESS is not followed.

    Raises:
        InputError: the cluster is not named, cannot be reached, lacks a token or has no room for the pools; the
            sentence names what is missing.
    """
    address = secure_ray(address)
    import ray

    options: dict[str, Any] = {"address": address} if address else {
        "address": "local", **_here(pools), "include_dashboard": False,
    }  # fmt: skip
    limited = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} if threads else {}
    if address:
        _begin(ray, address, {"runtime_env": {"env_vars": limited}, **options})
    else:  # inherited, for a runtime_env of its own would cost every worker the process that Ray has waiting for it
        with _environment(limited):
            _begin(ray, address, options)
    patience = limits.wait_seconds if address else 0.0
    try:
        yield Pools(ray, _placed(ray, pools, patience), limits)
    finally:
        if patience:
            _request(())  # what was asked of the autoscaler may go again
        ray.shutdown()


class Pools:
    """The actors of every pool; they outlive one call of `run_ray`, so that models are loaded once per run.

    Attributes:
        pools: their settings, with their sizes.
        limits: when what does not work is given up.
    """

    def __init__(self, ray: Any, pools: Sequence[PoolConfig], limits: LimitConfig) -> None:
        self.ray, self.pools, self.limits = ray, list(pools), limits
        self.actor_pools: list[ActorPool] = []
        self.task: Task | None = None
        self.shared: Any = None

    def serve(self, task: Task) -> list[ActorPool]:
        """Actor pools for `task` from now on; workers of another task end.

        A task without stages is done by the first pool alone.
        """
        if task is not self.task:
            for pool in self.actor_pools:
                for actor in [*pool.idle, *(call.actor for call in pool.calls.values())]:
                    self.ray.kill(actor)
            self.actor_pools = [ActorPool(pool) for pool in (self.pools if task.stages else self.pools[:1])]
            self.task, self.shared = task, self.ray.put(task)
        return self.actor_pools


def run_ray(task: Task, jobs: Sequence[Job], done: Done, pools: Pools) -> None:
    """Run every job through the pools and hand each result to `done` in the order they finish.

    What is in flight is bounded by the number of workers, not of jobs.

    Raises:
        GazetteerError: from a worker or from `done`, or when workers die without ever finishing anything.
    """
    if jobs:
        actor_pools = pools.serve(task)
        Driver(pools.ray, task, pools.shared, jobs, done, actor_pools, pools.limits).run()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in the environment meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _begin(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Start or join Ray; on a machine too busy to start it in the time Ray allows, once more."""
    for tries_left in (1, 0):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except Exception as error:  # Ray raises bare ones here
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            ray.shutdown()
            if address or not tries_left or "timed out" not in reason:
                raise InputError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from error
            log.warning("Ray did not start (%s); trying once more.", reason)


def _here(pools: Sequence[PoolConfig]) -> dict[str, Any]:
    """What a private Ray has to offer: CPUs and custom resources only gate here, so there are as many as asked for."""
    cpus = sum(pool.cpus * max(1, pool.workers) for pool in pools)
    names = {name for pool in pools for name in pool.resources}
    custom = {name: sum(pool.resources.get(name, 0.0) * max(1, pool.workers) for pool in pools) for name in names}
    return {"num_cpus": max(int(-(-cpus // 1)), os.cpu_count() or 1), "resources": custom}


def _placed(ray: Any, pools: Sequence[PoolConfig], patience: float) -> list[PoolConfig]:
    """The pools with their sizes, once there is room for them; InputError when there is none in time."""
    end = time.monotonic() + patience
    if patience:
        _request(pools)
    while True:
        nodes = [Node(dict(n["Resources"]), dict(n.get("Labels") or {})) for n in ray.nodes() if n["Alive"]]
        try:
            return place(pools, nodes)
        except InputError:
            if time.monotonic() >= end:
                raise
            time.sleep(min(1.0, max(0.05, patience / 100)))


def _request(pools: Sequence[PoolConfig]) -> None:
    """Ask the cluster's autoscaler to hold room for the pools, instead of what was asked before."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(pool.demand) for pool in pools for _ in range(max(1, pool.workers)) if pool.demand])
