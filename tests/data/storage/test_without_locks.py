"""File systems without flock (Lustre without its option, some NFS): a lease stands in, and nothing else changes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gazetteer.data.core.errors import LockedError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage import runlock
from tests.support.runs.runs import commit
from tests.support.system.noflock import without_flock
from tests.support.system.running import ROOT

RUN = """
import os, sys
from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import commit
try:
    run = RunFolder(sys.argv[1]).open_or_create({"config": "abc"})
    with run.lock():
        if "die" in sys.argv:
            os.kill(os.getpid(), 9)
        if "wait" in sys.argv:
            print("held", flush=True)
            sys.stdin.readline()
        commit(run, "a"), commit(run, "b")
        assert set(run.committed(verify=True)) == {"a", "b"}
        run.finish({"shards": ["a", "b"]})
except GazetteerError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start(folder: Path, environment: dict[str, str], *how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), *how], cwd=ROOT, env={**os.environ, **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_run_comes_out_and_a_second_driver_is_kept_out(tmp_path: Path) -> None:
    kinds = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
    runs = [start(tmp_path / str(kind), without_flock(tmp_path, kind)) for kind in kinds]
    held = start(tmp_path / "held", without_flock(tmp_path, kinds[0]), "wait")
    assert held.stdout is not None and held.stdout.readline() == "held\n"
    said, _ = (second := start(tmp_path / "held", without_flock(tmp_path, kinds[0]))).communicate(timeout=120)
    assert second.returncode == 75, said
    assert f"(id {held.pid} on " in said
    assert held.communicate("\n", timeout=120)[1].count("no file locks") == 1
    assert start(tmp_path / "locks", {}).communicate(timeout=120) == ("", "")
    for kind, process in zip(kinds, runs, strict=True):
        out, warned = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "")
        assert "has no file locks; a lease of 120 seconds stands in" in warned
        assert content(tmp_path / str(kind)) == content(tmp_path / "locks"), "no staged file is left either"
    assert content(tmp_path / "held") == content(tmp_path / "locks")


def test_a_dead_holder_of_this_machine_keeps_nobody_out(tmp_path: Path) -> None:
    no_flock = without_flock(tmp_path, errno.ENOSYS)
    died = start(tmp_path / "run", no_flock, "die")
    died.communicate(timeout=120)
    assert died.returncode == -signal.SIGKILL
    again = start(tmp_path / "run", no_flock)
    assert (again.communicate(timeout=120)[0], again.returncode) == ("", 0)


def test_without_locks_and_links_nothing_can_be_written_once(tmp_path: Path) -> None:
    process = start(tmp_path / "run", without_flock(tmp_path, errno.ENOSYS, links=False))
    said, trace = process.communicate(timeout=120)
    assert process.returncode == 1, trace
    assert "without locks and without hard links" in said and "choose another folder" in said


def test_who_lost_the_lease_stops_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that was frozen for minutes, while another took the run over, commits nothing more."""
    monkeypatch.setattr(runlock, "SETTLE_SECONDS", 0.0)
    run = RunFolder("memory://frozen").open_or_create({})
    with run.lock():
        commit(run, "a")
        stale = json.loads(run._files.read("_meta/lock"))
        run._files.replace("_meta/lock", json.dumps(stale | {"renewed": 0.0}).encode())
        other = RunFolder("memory://frozen").open_or_create({})
        with other.lock():
            now = runlock.time.time
            monkeypatch.setattr(runlock.time, "time", lambda: now() + 2 * runlock.LEASE_SECONDS)  # it wakes up
            with pytest.raises(LockedError, match="was taken over by another process"):
                commit(run, "b")
            monkeypatch.setattr(runlock.time, "time", now)
            commit(other, "b")
        assert run.shard_ids() == ["a", "b"]


@pytest.mark.parametrize("said", ["[]", "3", "null", "[" * 100_000, f'{{"renewed": 1{"0" * 400}}}'])
def test_a_lease_of_another_shape_is_nobodys(said: str) -> None:
    run = RunFolder("memory://shapes").open_or_create({})
    run._files.replace("_meta/lock", said.encode())
    with run.lock():
        pass
