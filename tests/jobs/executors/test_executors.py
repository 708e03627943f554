"""Both executors do the same jobs; Ray's survives workers that die and isolates the item that kills them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.tables.provenance import package_versions
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig
from gazetteer.jobs.executors.ray.driver import check_versions
from gazetteer.jobs.executors.ray.executor import Pools, ray_pools, run_ray
from gazetteer.jobs.executors.serial import run_serial
from gazetteer.jobs.executors.task import Job, Task
from tests.support.system import toy_work

pytestmark = pytest.mark.alone

TASK = Task(toy_work.Squarer, toy_work.join, toy_work.lost, item_seconds=30)
STAGED = Task(toy_work.Staged, toy_work.join, toy_work.lost, ("first", "second"), item_seconds=30)
APART = [PoolConfig(("first",), 1, memory_gib=1.0), PoolConfig(("second",), 2, cpus=0.5)]


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    with ray_pools(APART, threads=1, limits=LimitConfig(attempts=1)) as pools:
        yield pools


def collect(run: Any, jobs: list[Job], **options: Any) -> dict[str, list[tuple[int, int]]]:
    results: dict[str, list[tuple[int, int]]] = {}

    def done(job: Job, result: list[tuple[int, int]]) -> None:
        assert job.id not in results, "a job is done once"
        results[job.id] = result

    run(options.pop("task", TASK), jobs, done, **options)
    return results


def jobs_of(*items: tuple[int, ...]) -> list[Job]:
    return [Job(f"job-{number}", row) for number, row in enumerate(items)]


def test_serial_and_ray_agree(pools: Pools) -> None:
    jobs = jobs_of((1, 2, 3), (4,), (5, 6), (7, 8, 9, 10))
    expected = {job.id: [(i, i * i) for i in job.items] for job in jobs}
    assert collect(run_serial, jobs) == expected
    assert collect(run_ray, jobs, pools=pools) == expected


def test_no_jobs_build_no_worker() -> None:
    assert collect(run_serial, [], task=Task(toy_work.Stillborn, toy_work.join, toy_work.lost)) == {}


def test_poison_items_are_isolated_and_their_neighbours_are_kept(pools: Pools) -> None:
    """Items that kill their process, crash it, raise, eat memory and hang; one actor after another is replaced."""
    errors = {-1: "WorkerDied", -4: "WorkerDied", -2: "RuntimeError", -6: "MemoryError"}
    jobs = [*jobs_of(*((at, poison) for at, poison in enumerate(errors))), Job("sound", (8, 9))]
    results = collect(run_ray, jobs, pools=pools)
    assert results.pop("sound") == [(8, 64), (9, 81)]
    assert results == {f"job-{at}": [(at, at * at), (bad, why)] for at, (bad, why) in enumerate(errors.items())}
    hanging = collect(run_ray, jobs_of((3, -5)), pools=pools, task=replace(TASK, item_seconds=4.0))
    assert hanging == {"job-0": [(3, 9), (-5, "TimeLimit")]}


def test_an_item_is_tried_as_often_as_the_limits_say(pools: Pools) -> None:
    limits, pools.limits = pools.limits, LimitConfig(attempts=2)
    try:
        assert collect(run_ray, jobs_of((-2, 3)), pools=pools, task=replace(TASK, lost=toy_work.tries)) == {
            "job-0": [(-2, 4), (3, 9)]  # twice with its neighbour, twice alone
        }
    finally:
        pools.limits = limits


def test_the_first_of_many_may_be_poison(pools: Pools) -> None:
    """With one worker nothing but deaths is seen until the last halving; that is still no reason to give up."""
    results = collect(run_ray, jobs_of((-1, *range(1, 16))), pools=pools)
    assert results["job-0"] == [(-1, "WorkerDied"), *((i, i * i) for i in range(1, 16))]


def test_stages_apart_come_to_what_stages_together_do(pools: Pools) -> None:
    jobs = jobs_of((1, 2, 3), (4,), (5, 6), (7, 8, 9, 10))
    together, apart = collect(run_serial, jobs, task=STAGED), collect(run_ray, jobs, task=STAGED, pools=pools)
    assert {name: [row[:2] for row in rows] for name, rows in apart.items()} == {
        name: [row[:2] for row in rows] for name, rows in together.items()
    }
    rows = [row for result in apart.values() for row in result]
    first, second = ({row[stage] for row in rows} for stage in (2, 3))
    assert len(first) == 1
    assert 1 <= len(second) <= 2
    assert not first & second


def test_what_kills_a_later_stage_is_found_too(pools: Pools) -> None:
    results = collect(run_ray, jobs_of((1, 99), (5, 6)), task=STAGED, pools=pools)  # 99 - 100 is poison
    assert [row[:2] for row in results["job-0"]] == [(1, 3), (99, "WorkerDied")]
    assert [row[:2] for row in results["job-1"]] == [(5, 15), (6, 18)]


def test_the_users_error_ends_the_run_with_its_own_sentence(pools: Pools) -> None:
    with pytest.raises(InputError, match="The item -3 is not a number to square"):
        collect(run_ray, jobs_of((1, -3)), pools=pools)


def test_an_error_leaves_no_work_behind(pools: Pools) -> None:
    with pytest.raises(InputError):
        collect(run_ray, jobs_of((-3,), *((-5,) for _ in range(5))), pools=pools)
    assert collect(run_ray, jobs_of((1, 2)), pools=pools) == {"job-0": [(1, 1), (2, 4)]}


def test_a_worker_with_other_packages_is_refused_by_name() -> None:
    mine = package_versions()
    check_versions({"host": "node-7", "versions": mine})
    with pytest.raises(GazetteerError, match=r"node-7 has other packages: torch 1\.0 \(here [0-9].*install the same"):
        check_versions({"host": "node-7", "versions": {**mine, "torch": "1.0"}})


def test_workers_that_never_get_ready_end_the_run(pools: Pools) -> None:
    limits, pools.limits = pools.limits, LimitConfig(start_seconds=1.0)
    try:
        with pytest.raises(GazetteerError, match="did not start within 1 s"):
            collect(run_ray, jobs_of((1,)), pools=pools, task=replace(TASK, build=toy_work.NeverReady))
    finally:
        pools.limits = limits


def test_workers_that_never_come_up_end_the_run(pools: Pools) -> None:
    stillborn = Task(toy_work.Stillborn, toy_work.join, toy_work.lost)
    with pytest.raises(GazetteerError, match="keep dying"):
        collect(run_ray, jobs_of((1, 2, 3, 4, 5, 6)), pools=pools, task=stillborn)


def test_the_session_is_private_and_authenticated(pools: Pools) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    # Whoever comes without the token is turned away: ask the control plane as another process would.
    import subprocess
    import sys

    address = pools.ray.get_runtime_context().gcs_address
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")} | {"HOME": "/nonexistent"}
    script = (
        "import ray._raylet as r\n"
        f"o = r.GcsClientOptions.create({address!r}, None, True, False)\n"
        f"c = r.GcsClient(address={address!r})\n"
        "print('ENTERED', len(c.get_all_node_info()))\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "ENTERED" not in asked.stdout
    assert "uthenticat" in asked.stderr
