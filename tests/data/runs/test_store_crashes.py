"""The run folder under SIGKILL at every system call, full disks and writers in each other's way."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import PROVENANCE, commit, evidence
from tests.support.system.small_disk import small_disk

ROOT = Path(__file__).parents[3]

KILLS = """
import os, sys
from gazetteer.data.runs.folder import RunFolder
from tests.support.system.killer import killed_everywhere
from tests.support.runs.runs import commit

def work(at):
    run = RunFolder(f"{sys.argv[1]}/{at}").open_or_create({"config": "abc"})
    commit(run, "a", 1)
    run.finish({"shards": ["a"]})

print(killed_everywhere([(os, name) for name in ("link", "write", "fsync", "replace", "unlink", "mkdir")], work))
"""


def python(script, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def finished(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def visible(folder):
    """Bytes of every file of a run outside the staging folder."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and "staging" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "lock"}


def test_a_kill_at_any_moment_leaves_whole_files_and_a_run_that_resumes(tmp_path):
    kills = int(finished(python(KILLS, tmp_path / "killed")))
    assert kills > 40  # two tables, their folders, records, manifest
    wanted = visible(tmp_path / "killed" / str(kills))
    for at in range(kills):
        folder = tmp_path / "killed" / str(at)
        for path, content in visible(folder).items():
            assert content == wanted[path], f"torn {path} after a kill at call {at}"
        run = RunFolder(folder).open_or_create({"config": "abc"})
        with run.lock():
            assert set(run.committed(verify=True)) <= {"a"}
            commit(run, "a", 1)
            run.finish({"shards": ["a"]})
        assert visible(folder) == wanted
        assert list((folder / "_meta/staging").iterdir()) == []
        assert run.is_complete()


def test_a_kill_between_parts_and_record_does_not_mix_attempts(tmp_path):
    """GPU output differs between attempts: the second attempt's parts replace the orphans of the first."""
    script = """
import os, signal, sys
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import commit
run = RunFolder(sys.argv[1])
create = run._files.create
def killed(name, content, **rest):
    if name.startswith("_meta/commits"):
        os.kill(os.getpid(), signal.SIGKILL)
    return create(name, content, **rest)
run._files.create = killed
commit(run, "a", 1)
"""
    process = python(script, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -9
    run = RunFolder(tmp_path)
    assert len(list(tmp_path.glob("*/part-a.parquet"))) == 2
    assert run.committed() == {}
    assert run.read_table("evidence").num_rows == 0  # orphans do not count
    second = commit(run, "a", 2)
    assert run.committed(verify=True) == {"a": second}
    assert run.read_table("failures")["attempts"].to_pylist() == [2]
    assert run.read_table("evidence")["images"].to_pylist() == [2]


def test_two_processes_committing_the_same_shards_agree_on_the_first(tmp_path):
    script = """
import json, os, sys, time
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import commit
folder, count = sys.argv[1], int(sys.argv[2])
open(f"{folder}/ready-{count}", "w").close()
while len([n for n in os.listdir(folder) if n.startswith("ready")]) < 2:
    time.sleep(0.001)
run = RunFolder(f"{folder}/run")
print(json.dumps([commit(run, f"s{n}", count).info["seen"] for n in range(25)]))
"""
    both = [python(script, tmp_path, count) for count in (1, 2)]
    first, second = (json.loads(finished(process)) for process in both)
    assert first == second  # each was told which commit counts
    run = RunFolder(tmp_path / "run")
    commits = run.committed(verify=True)
    assert {int(shard[1:]): done.info["seen"] for shard, done in commits.items()} == dict(enumerate(first))
    for shard, done in commits.items():
        assert run.read_table("evidence", shards=[shard])["images"].to_pylist() == [done.info["seen"]]
        assert run.read_table("failures", shards=[shard])["attempts"].to_pylist() == [done.info["seen"]]
    assert list((tmp_path / "run/_meta/staging").iterdir()) == []


def test_the_lock_is_freed_when_its_holder_is_killed_and_names_it_before(tmp_path):
    script = """
import sys, time
from gazetteer.data.runs.folder import RunFolder
with RunFolder(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(600)
"""
    process = python(script, tmp_path)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(GazetteerError, match=f"id {process.pid} on"), RunFolder(tmp_path).lock():
            pass
    finally:
        process.kill()
        process.communicate(timeout=60)
    with RunFolder(tmp_path).lock():
        pass


def test_a_sweep_spares_live_writers(tmp_path):
    run = RunFolder(tmp_path)
    with run._files._staged("images/part-a.parquet", b"live") as staged, run.lock():
        assert staged.exists()
        dead = staged.with_name(f"part-b.parquet.{'0' * 32}")
        dead.write_bytes(b"torn")
        run._files.sweep()
        assert (staged.exists(), dead.exists()) == (True, False)


def test_without_hard_links_names_are_still_created_once(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    run = RunFolder(tmp_path)
    first = commit(run, "a", 1)
    assert commit(run, "a", 2) == first
    nothing_torn(tmp_path, {"a"})


@pytest.mark.parametrize("age", [3600, -3600], ids=["old", "from a clock that jumped"])
def test_a_stale_lease_is_taken_over_and_a_fresh_one_respected(age):
    run = RunFolder("memory://lease-test")
    stale = {"holder": "a killed one", "token": "x", "renewed": time.time() - age}
    run._files.replace("_meta/lock", json.dumps(stale).encode())
    with run.lock(), pytest.raises(GazetteerError, match=f"id {os.getpid()}"), RunFolder(run.path).lock():
        pass
    assert run._files.size("_meta/lock") is None


def nothing_torn(folder, shards):
    """Every visible part is whole, nothing is left staged, and the run resumes once there is space."""
    run = RunFolder(folder)
    for path in Path(folder).glob("*/part-*.parquet"):
        assert pq.read_table(path).num_rows == 1
    assert list(Path(folder, "_meta/staging").glob("*")) == []
    assert set(run.committed(verify=True)) == shards


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("failing", range(4))
def test_a_write_that_fails_half_way_leaves_nothing_torn(tmp_path, monkeypatch, code, failing):
    commit(RunFolder(tmp_path), "before")
    calls, write = [], os.write

    def full(descriptor, content):
        calls.append(0)
        if len(calls) > failing:
            write(descriptor, bytes(content)[: len(content) // 2])
            raise OSError(code, os.strerror(code))
        return write(descriptor, content)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        if failing == 3:  # two parts and a record went through
            commit(RunFolder(tmp_path), "a")
        else:
            with pytest.raises(GazetteerError, match=r"run the same command again: it resumes\.$"):
                commit(RunFolder(tmp_path), "a")
    nothing_torn(tmp_path, {"before"} if failing < 3 else {"before", "a"})
    commit(RunFolder(tmp_path), "a")
    nothing_torn(tmp_path, {"before", "a"})


FILL = """
import resource, sys
import pyarrow as pa
from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder
from tests.support.runs.runs import PROVENANCE, commit, evidence
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
run = RunFolder(sys.argv[1])
commit(run, "before")
cells = [n * 7919 % 999983 for n in range(200_000)]
table = evidence(1)
table = table.set_column(table.column_names.index("cells"), "cells", pa.array([cells], pa.list_(pa.int64())))
try:
    for n in range(40):
        run.commit_shard(f"big{n}", {"evidence": table}, {}, PROVENANCE)
except GazetteerError as error:
    print(error)
"""


def test_a_file_size_limit_gets_a_sentence(tmp_path):
    says = finished(python(FILL, tmp_path, "limit"))
    assert says.startswith(f"No space left on {tmp_path}")
    nothing_torn(tmp_path, {"before"})


@pytest.mark.mount
def test_a_full_disk_gets_a_sentence_and_the_run_resumes(tmp_path):
    with small_disk(tmp_path / "disk", "3m") as disk:
        says = finished(python(FILL, disk / "run", "disk"))
        assert says.startswith(f"No space left on {disk}/run")
        assert "free some and run the same command again: it resumes." in says
        run = RunFolder(disk / "run")
        done = run.committed(verify=True)
        assert "before" in done
        for path in (disk / "run").glob("*/part-*.parquet"):
            assert pq.read_table(path).num_rows == 1
        assert list((disk / "run/_meta/staging").iterdir()) == []
        run.drop_shard("big0")  # free some
        assert run.commit_shard("small", {"evidence": evidence(3)}, {}, PROVENANCE).info == {}
