"""A cluster of several nodes on this machine: what it lacks is said in seconds, and it may lose a node and gain one."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from soak import descendants, kill

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.task import Job, Task
from tests.support.system import toy_work
from tests.support.system.running import FEW, ROOT, digests, label

pytestmark = pytest.mark.alone

FIRST = PoolConfig(("first",), 2, resources={"a": 1})
SECOND = PoolConfig(("second",), 1, resources={"b": 1})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    # As a user who names a cluster does; kept afterwards, for Ray reads its token once in the life of a process.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray").mkdir(exist_ok=True)  # or Ray's Cluster fails
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"b": 1}, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1, resources={"a": 1})
        yield cluster
    finally:
        cluster.shutdown()


def test_what_a_named_cluster_lacks_is_said_and_nothing_is_started(cluster: Any) -> None:
    with (
        pytest.raises(InputError, match=r"pool first needs 2 workers with CPU 1, a 1 each, but there is room for 1"),
        ray_pools([FIRST, SECOND], 1, cluster.address),
    ):
        pass
    with pytest.raises(InputError, match="too little GPU"), ray_pools([PoolConfig(gpus=1.0)], 1, cluster.address):
        pass


def test_fractions_of_devices_resources_and_labels_are_placed_where_they_are(cluster: Any) -> None:
    """Two workers share the one device that is labelled as wanted; the next stage goes where its resource is."""
    spot = cluster.add_node(num_cpus=2, num_gpus=1, labels={"market": "spot", "zone": "a-1"})
    other = cluster.add_node(num_cpus=2, num_gpus=1, labels={"market": "on-demand", "zone": "b-1"})
    try:
        halves = PoolConfig(("first",), 0, cpus=0.5, gpus=0.5, labels={"market": "spot", "zone": "in(a-1,c-1)"})
        with (
            pytest.raises(
                InputError, match=r"first needs 3 workers with CPU 0.5, GPU 0.5 each .*market=spot.*room for 2"
            ),
            ray_pools([replace(halves, workers=3), SECOND], 1, cluster.address),
        ):
            pass
        task = Task(toy_work.Placed, toy_work.join, toy_work.lost, ("first", "second"), item_seconds=60)
        jobs = [Job(f"job-{at}", (at,)) for at in range(12)]
        rows: list[Any] = []
        with ray_pools([halves, SECOND], 1, cluster.address) as pools:
            assert [pool.workers for pool in pools.place()[0]] == [2, 1], "as many halves as the labelled device has"
            run_ray(task, jobs, lambda _, result: rows.extend(result), pools)
        assert sorted(item for item, *_ in rows) == list(range(12))
        firsts, seconds = ({row[stage] for row in rows} for stage in (1, 2))
        assert len(firsts) == 2
        assert {(node, devices) for _, node, devices in firsts} == {(spot.node_id, "0")}
        assert [node for _, node, _ in seconds] == [cluster.head_node.node_id]
    finally:
        cluster.remove_node(spot)
        cluster.remove_node(other)


def test_a_cluster_may_grow_lose_a_node_with_what_it_held_and_gain_another(cluster: Any, tmp_path: Path) -> None:
    """The run waits for the node it needs; SIGKILL takes one with finished first stages on it; a new one joins."""
    doomed: list[Any] = []
    # Ray starts nodes from the main thread only, which by then waits for one: a signal brings it to it.
    before = signal.signal(signal.SIGUSR1, lambda *_: doomed.append(cluster.add_node(num_cpus=1, resources={"a": 1})))
    joining = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGUSR1))
    joining.start()
    jobs = [Job(f"job-{at}", (3 * at, 3 * at + 1, 3 * at + 2)) for at in range(10)]
    task = Task(toy_work.Bulky, toy_work.join, toy_work.lost, ("first", "second"), item_seconds=60)
    results: dict[str, Any] = {}

    def done(job: Job, result: Any) -> None:
        assert job.id not in results
        results[job.id] = result
        if len(results) == 2:
            cluster.remove_node(doomed[0], allow_graceful=False)
        if len(results) == 5:
            cluster.add_node(num_cpus=1, resources={"a": 1})

    began = time.monotonic()
    with ray_pools([FIRST, SECOND], 1, cluster.address, LimitConfig(wait_seconds=120)) as pools:
        assert time.monotonic() - began >= 0.5, "it waited for the second node"
        run_ray(task, jobs, done, pools)
    joining.join()
    signal.signal(signal.SIGUSR1, before)
    assert results == {job.id: [(item, item * 2**18) for item in job.items] for job in jobs}


def test_an_open_pool_takes_in_a_node_that_joins(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gazetteer.jobs.executors.ray.driver.GROWTH_SECONDS", 0.1)
    first = cluster.add_node(num_cpus=1, resources={"d": 1})
    later: list[Any] = []
    rows: list[Any] = []

    def done(job: Job, result: Any) -> None:
        rows.extend(result)
        if not later:
            later.append(cluster.add_node(num_cpus=1, resources={"d": 1}))

    task = Task(toy_work.Placed, toy_work.join, toy_work.lost, ("first", "second"), item_seconds=60)
    jobs = [Job(f"job-{at}", (at,)) for at in range(60)]
    try:
        with ray_pools([PoolConfig(("first", "second"), 0, resources={"d": 1})], 1, cluster.address) as pools:
            run_ray(task, jobs, done, pools)
            (pool,) = pools.actor_pools
            assert (pool.config.workers, set(pool.nodes)) == (2, {first.node_id, later[0].node_id})
        assert sorted(item for item, _ in rows) == list(range(len(jobs)))
    finally:
        cluster.remove_node(first)
        for node in later:
            cluster.remove_node(node)


def test_a_run_that_loses_a_node_and_gains_one_comes_to_the_same_tables(cluster: Any, tmp_path: Path) -> None:
    pools = "pools=[{stages: [generate], workers: 1, resources: {c: 1}}, "
    pools += "{stages: [detect, segment, evidence], workers: 1, resources: {b: 1}}]"
    doomed = cluster.add_node(num_cpus=1, resources={"c": 1})
    run, settings = tmp_path / "run", [pools, "executor=ray", f"ray_address={cluster.address}"]
    command = [sys.executable, "-m", "gazetteer", "label", "--out", str(run), "--set", *FEW, *settings]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        while driver.poll() is None and not list(run.glob("_meta/commits/*.json")):
            time.sleep(0.02)
        workers = descendants(doomed.all_processes["raylet"][0].process.pid)
        cluster.remove_node(doomed, allow_graceful=False)
        for pid in workers:  # which would see for themselves, but perhaps only after their last picture
            kill(pid)
        cluster.add_node(num_cpus=1, resources={"c": 1})
        said = driver.communicate(timeout=500)[1]
    assert driver.returncode == 0, said
    assert re.search(r"generate(, shard \w+)? lost a worker", said), said
    assert label(tmp_path / "undisturbed", *FEW, "executor=serial").returncode == 0
    assert digests(run) == digests(tmp_path / "undisturbed")
