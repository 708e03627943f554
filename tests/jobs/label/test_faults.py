"""What may befall a whole run: given again, the same command comes to the tables of a run that nothing disturbed.

Real processes each time. What befalls single pictures is in test_failures.py, nodes in test_cluster.py, random kills in
test_soak.py, full disks in test_bad_input.py, and the run folder by itself in test_store_crashes.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.operate.status import status
from gazetteer.jobs.operate.verify import verify
from tests.data.storage.test_object_store import content
from tests.support.servers.object_store import Network, environment, network
from tests.support.system.jumping_clock import JumpingClock
from tests.support.system.running import FEW, ROOT, digests, label

SERIAL = [*FEW, "executor=serial"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = label(run, *SERIAL)
    assert done.returncode == 0, done.stderr
    return run


def started(out: str, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gazetteer", "label", "--out", out, "--set", *SERIAL]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    said = process.communicate(timeout=500)[1]
    assert process.returncode == code, said
    return said


def until(process: subprocess.Popen[str], true: Callable[[], bool]) -> None:
    """Wait for something that happens while the process runs."""
    while not true():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


def watched(url: str) -> dict[str, Any]:
    """What another machine sees of a run."""
    return status(url) if RunFolder(url).exists() else {"state": "absent", "shards": {"done": 0}}


def same_as_on_disk(url: str, run: Path) -> bool:
    there = {name: body for name, body in content(url).items() if name.endswith(".parquet")}
    return there == {f"/{path.relative_to(run)}": path.read_bytes() for path in run.rglob("*.parquet")}


KILLED = """
import os, signal, sys
from gazetteer.data.storage.local import LocalFiles
from gazetteer.jobs.cli.main import main

create, records = LocalFiles.create, []

def killed(self, name, content, **rest):
    if name.startswith("_meta/commits/"):
        records.append(name)
        if len(records) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return create(self, name, content, **rest)

LocalFiles.create = killed
main(sys.argv[1:])
"""


def test_a_driver_killed_between_publishing_and_recording(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, "label", "--out", str(run), "--set", *SERIAL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=500)
    assert done.returncode == -signal.SIGKILL
    assert len(list(run.glob("_meta/commits/*.json"))) == 1
    assert len(list(run.glob("images/part-*.parquet"))) == 2, "published, and not recorded"
    report = verify(run)
    assert (report["verdict"], report["orphans"] > 0) == ("unfinished", True)
    done = label(run, *SERIAL)
    assert done.returncode == 0, done.stderr
    assert digests(run) == digests(undisturbed)
    assert verify(run)["verdict"] == "sound"


PATIENCE = json.dumps({"config_kwargs": {"connect_timeout": 2, "read_timeout": 2, "retries": {"max_attempts": 1}}})
"""What makes s3fs give up in seconds instead of minutes; docs/reference/cluster.md names the variable."""


def test_a_store_that_hangs_and_then_refuses(undisturbed: Path, server: str) -> None:
    url = "s3://bucket/store/run"
    with network(server) as between:
        reach = {**environment(between.address), "FSSPEC_S3": PATIENCE}
        process = started(url, **reach)
        until(process, lambda: watched(url)["shards"]["done"] >= 1)
        assert watched(url)["state"] == "running", "as seen past the network that is about to hang"
        between.fault, between.fraction, between.patience = "hang", 1.0, 30.0
        assert_a_sentence(finished(process, 1), url, between)
        between.fault = "refuse"
        assert_a_sentence(finished(started(url, **reach), 1), url, between)
        # The lease could not be given back; its holder is seen to be dead, and turns nobody away.
        between.fault, between.fraction = "lose", 0.03
        while (process := started(url, **reach)).wait(timeout=500) == 1:
            between.fraction /= 2
        finished(process)
    assert same_as_on_disk(url, undisturbed)
    assert verify(url)["verdict"] == "sound"


def assert_a_sentence(said: str, url: str, between: Network) -> None:
    assert sum(between.spoiled[f"{between.fault} {method}"] for method in ("HEAD", "GET", "PUT")) > 0
    last = said.strip().splitlines()[-1]
    assert last.startswith("gazetteer: Cannot ") and url in last
    assert last.endswith("run the same command again: what was begun goes on.")
    assert "Traceback" not in said


@pytest.mark.compiler
def test_a_clock_that_jumps_and_a_driver_killed_with_it(undisturbed: Path, server: str, tmp_path: Path) -> None:
    """On a bucket, where the lock is a lease with a time in it: a day ahead and killed, then an hour back."""
    url = "s3://bucket/clock/run"
    clock = JumpingClock(tmp_path)
    process = started(url, **clock.environment)
    until(process, lambda: watched(url)["shards"]["done"] >= 1)
    assert watched(url)["state"] == "running"
    clock.jump(24 * 3600)
    until(process, lambda: watched(url)["shards"]["done"] >= 2)
    process.kill()
    process.communicate()
    stamps = json.loads(RunFolder(url)._files.read("_meta/lock")) | {"renewed": time.time() + 24 * 3600}
    RunFolder(url)._files.replace("_meta/lock", json.dumps(stamps).encode())  # as its next renewal would have left it
    clock.jump(0)
    process = started(url, **clock.environment)
    until(process, lambda: watched(url)["shards"]["done"] >= 3)
    clock.jump(-3600)
    finished(process)
    assert same_as_on_disk(url, undisturbed)
    assert verify(url)["verdict"] == "sound"
