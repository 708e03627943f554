"""The Ray of a run: what happens to it and to its driver ends in a sentence, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gazetteer.jobs.executors.ray import reaper
from tests.support.system.running import ROOT

pytestmark = pytest.mark.alone

DRIVER = """
import sys
from gazetteer.data.core.errors import GazetteerError
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.stop import Stopped, stopping
from gazetteer.jobs.executors.task import Job, Task
from tests.support.system import toy_work

task = Task(toy_work.Squarer, toy_work.join, toy_work.lost)
try:
    with stopping(), ray_pools([PoolConfig(workers=1)], 1) as pools:
        # The second job sleeps for ever.
        run_ray(task, [Job("a", (2,)), Job("b", (-5,))], lambda _, result: print(result, flush=True), pools)
except GazetteerError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
except Stopped as stopped:
    sys.exit(128 + stopped.signal)
"""


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


@contextmanager
def driver_at_work() -> Iterator[subprocess.Popen[str]]:
    """A driver whose first job is done and whose second never will be; ended with the block, should that fail."""
    command = [sys.executable, "-c", DRIVER]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "[(2, 4)]\n"
        yield driver
    finally:
        driver.kill()
        driver.wait()


def family_of(driver: subprocess.Popen[str]) -> dict[int, str]:
    """Ray's processes, with their start times."""
    start = reaper.started(driver.pid)
    assert start is not None
    return reaper.below({driver.pid: start})


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


@pytest.mark.parametrize("fate", ["told to end", "driver killed", "raylet killed", "raylet frozen"])
def test_whatever_ends_a_run_ends_all_of_it(fate: str) -> None:
    with driver_at_work() as driver:
        family = family_of(driver)
        (raylet,) = [pid for pid in family if words_of(pid)[0].endswith("/raylet")]
        (socket,) = [word for word in words_of(raylet) if word.startswith("--store_socket_name=")]
        folder = Path(socket.partition("=")[2]).parents[3]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "no other user may enter"
        assert len(family) > 5
        if fate == "told to end":
            driver.terminate()
        elif fate == "driver killed":
            driver.kill()
        else:
            os.kill(raylet, signal.SIGKILL if fate == "raylet killed" else signal.SIGSTOP)
        said = driver.communicate(timeout=120)[1]
    wanted = {"told to end": 128 + signal.SIGTERM, "driver killed": -signal.SIGKILL}
    assert driver.returncode == wanted.get(fate, 1), said
    if fate.startswith("raylet"):
        assert said.startswith("The private Ray of this run was lost: its raylet"), said
        assert said.endswith("it resumes.\n")
        assert len(said.splitlines()) == 1
    else:
        assert said == ""
    end = time.monotonic() + 60
    while left := [pid for pid, begun in family.items() if reaper.started(pid) == begun] or folder.exists():
        assert time.monotonic() < end, left
        time.sleep(0.1)


CALLER = """
import sys
import ray

own = sys.argv[1]
ray.init(num_cpus=1, include_dashboard=False, logging_level="CRITICAL")
if own == "ended":
    ray.shutdown()
seven = ray.remote(lambda: 7)

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.task import Job, Task
from tests.support.system import toy_work

for turn in range(2):
    with ray_pools([PoolConfig(workers=1)], 1) as pools:
        task = Task(toy_work.Squarer, toy_work.join, toy_work.lost)
        run_ray(task, [Job("a", (2, turn))], lambda _, result: print(result, flush=True), pools)
    assert ray.is_initialized() == (own == "running")
if own == "running":
    print(ray.get(seven.remote()))  # in the session's only place, so no worker of ours is left in it
    for pools, address in (([PoolConfig(workers=2)], ""), ([PoolConfig(workers=1)], "10.9.8.7:6379")):
        try:
            with ray_pools(pools, 1, address):
                pass
        except InputError as error:
            print(error)
    print(ray.get(seven.remote()))
"""


@pytest.mark.parametrize("own", ["ended", "running"])
def test_a_caller_may_use_ray_himself(own: str, tmp_path: Path) -> None:
    """Initialised and ended before, with a token of its own, or at work: then in the caller's session, which stays."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", CALLER, own], cwd=ROOT, env={**environment, "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    turns = [f"[(2, 4), ({turn}, {turn})]" for turn in (0, 1)]
    lines = done.stdout.splitlines()
    assert lines[:2] == turns
    if own == "running":
        assert lines[2] == lines[-1] == "7"
        assert "needs 2 workers with CPU 1 each, but there is room for 1" in lines[3]
        assert "ray_address is 10.9.8.7:6379" in lines[4]


UNDER_UV = """
from ray._private.runtime_env.uv_runtime_env_hook import _get_uv_run_cmdline
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.task import Job, Task
from tests.support.system import toy_work

assert _get_uv_run_cmdline(), "Ray takes this for uv run"
with ray_pools([PoolConfig(workers=1)], 1) as pools:
    task = Task(toy_work.Squarer, toy_work.join, toy_work.lost)
    run_ray(task, [Job("a", (2, 3))], lambda _, result: print(result, flush=True), pools)
"""


def test_uv_run_in_a_large_folder_packs_nothing(tmp_path: Path) -> None:
    """Ray would pack the working folder for its workers, and refuse one of more than 512 MB."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    child = [sys.executable, "-c", UNDER_UV]
    (tmp_path / "run").write_text(f"import subprocess, sys\nsys.exit(subprocess.call({child!r}))\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["uv", "run"], executable=sys.executable, cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[(2, 4), (3, 9)]\n"
