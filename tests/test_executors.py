"""Both executors do the same jobs; Ray's survives workers that die and isolates the item that kills them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from data.errors import GazetteerError, InputError
from jobs.ray_executor import Pool, ray_pool, run_ray
from jobs.serial_executor import run_serial
from jobs.work import Job, Task
from tests import toy_work

TASK = Task(toy_work.Squarer, toy_work.join, toy_work.lost)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with ray_pool(workers=2, threads=1) as pool:
        yield pool


def collect(run: Any, jobs: list[Job], **options: Any) -> dict[str, list[tuple[int, int]]]:
    results: dict[str, list[tuple[int, int]]] = {}

    def done(job: Job, result: list[tuple[int, int]]) -> None:
        assert job.id not in results, "a job is done once"
        results[job.id] = result

    run(options.pop("task", TASK), jobs, done, **options)
    return results


def jobs_of(*items: tuple[int, ...]) -> list[Job]:
    return [Job(f"job-{number}", row) for number, row in enumerate(items)]


def test_serial_and_ray_agree(pool: Pool) -> None:
    jobs = jobs_of((1, 2, 3), (4,), (5, 6), (7, 8, 9, 10))
    expected = {job.id: [(i, i * i) for i in job.items] for job in jobs}
    assert collect(run_serial, jobs) == expected
    assert collect(run_ray, jobs, pool=pool) == expected


def test_no_jobs_build_no_worker() -> None:
    assert collect(run_serial, [], task=Task(toy_work.Stillborn, toy_work.join, toy_work.lost)) == {}


@pytest.mark.parametrize("poison", [-1, -2], ids=["kills its process", "raises"])
def test_a_poison_item_is_isolated_and_its_neighbours_are_kept(pool: Pool, poison: int) -> None:
    jobs = jobs_of((1, 2, 3, poison, 5, 6, 7), (8, 9))
    results = collect(run_ray, jobs, pool=pool)
    assert results["job-0"] == [(1, 1), (2, 4), (3, 9), (poison, 0), (5, 25), (6, 36), (7, 49)]
    assert results["job-1"] == [(8, 64), (9, 81)]


def test_the_users_error_ends_the_run_with_its_own_sentence(pool: Pool) -> None:
    with pytest.raises(InputError, match="The item -3 is not a number to square"):
        collect(run_ray, jobs_of((1, -3)), pool=pool)


def test_workers_that_never_come_up_end_the_run(pool: Pool) -> None:
    stillborn = Task(toy_work.Stillborn, toy_work.join, toy_work.lost)
    with pytest.raises(GazetteerError, match="keep dying"):
        collect(run_ray, jobs_of((1, 2, 3, 4, 5, 6)), pool=pool, task=stillborn)


def test_the_session_is_private_and_authenticated(pool: Pool) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    # Whoever comes without the token is turned away: ask the control plane as another process would.
    import subprocess
    import sys

    address = pool.ray.get_runtime_context().gcs_address
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
