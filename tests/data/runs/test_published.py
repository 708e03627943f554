"""Parts that a worker publishes and another process records: staged, taken over, or carried along."""

import shutil
from pathlib import Path

import pytest

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.shards.parts import Workshop
from tests.data.runs.test_store_crashes import finished, python, visible
from tests.support.runs.runs import PROVENANCE, commit, evidence, failures

KILLS = """
import os, sys
from gazetteer.data.runs.folder import RunFolder
from tests.data.runs.test_published import tables
from tests.support.system.killer import killed_everywhere
from tests.support.runs.runs import PROVENANCE

def work(at):
    run = RunFolder(f"{sys.argv[1]}/{at}").open_or_create({"config": "abc"})
    run.record_parts(run.workshop(PROVENANCE).publish("a", tables("a", 1)), {"seen": 1})
    run.finish({"shards": ["a"]})

print(killed_everywhere([(os, name) for name in ("link", "write", "fsync", "replace", "unlink", "mkdir")], work))
"""


def tables(shard, count):
    return {"failures": failures(shard, attempts=count), "evidence": evidence(count)}


def opened(folder):
    return RunFolder(folder).open_or_create({"config": "abc"})


def staged(folder):
    return sorted(path.name for path in (Path(folder) / "_meta/staging").iterdir() if not path.name.startswith("here."))


def test_what_a_worker_stages_is_what_a_commit_would_have_put_there(tmp_path):
    plain, published = opened(tmp_path / "plain"), opened(tmp_path / "published")
    commit(plain, "a", 1)
    parts = published.workshop(PROVENANCE).publish("a", tables("a", 1))
    assert parts.contents == {} and len(staged(tmp_path / "published")) == 2
    assert published.committed() == {} and published.read_table("evidence").num_rows == 0
    done = published.record_parts(parts, {"seen": 1})
    assert published.committed(verify=True) == {"a": done}
    assert staged(tmp_path / "published") == []
    assert visible(tmp_path / "published") == visible(tmp_path / "plain")


def test_a_worker_that_sees_another_folder_of_that_name_hands_the_files_over(tmp_path):
    run = opened(tmp_path / "run")
    workshop = run.workshop(PROVENANCE)
    shutil.copytree(tmp_path / "run", tmp_path / "copy", ignore=shutil.ignore_patterns("here.*"))
    for path in (str(tmp_path / "copy"), str(tmp_path / "nowhere"), "nostore://bucket/run"):
        elsewhere = Workshop(path, workshop.sign, workshop.provenance)
        parts = elsewhere.publish("a", tables("a", 1))
        assert parts.contents.keys() == parts.tables.keys() == {"evidence", "failures"}
    run.record_parts(parts, {})
    assert run.read_table("failures")["item"].to_pylist() == ["a"]


def test_the_first_record_counts_and_what_came_later_is_removed(tmp_path):
    run = opened(tmp_path)
    workshop = run.workshop(PROVENANCE)
    first, second = (workshop.publish("a", tables("a", count)) for count in (1, 2))
    done = run.record_parts(second, {"seen": 2})
    assert run.record_parts(first, {"seen": 1}) == done
    assert run.read_table("evidence")["images"].to_pylist() == [2]
    assert len(staged(tmp_path)) == 2
    with run.lock():
        assert staged(tmp_path) == []
    assert run.committed(verify=True) == {"a": done}


def test_staged_parts_that_somebody_removed_are_missed(tmp_path):
    run = opened(tmp_path)
    parts = run.workshop(PROVENANCE).publish("a", tables("a", 1))
    for path in (tmp_path / "_meta/staging").iterdir():
        path.unlink()
    with pytest.raises(GazetteerError, match="published by a worker and is gone"):
        run.record_parts(parts, {})
    assert run.committed() == {}


def test_a_kill_at_any_moment_of_publishing_and_recording_leaves_a_run_that_resumes(tmp_path):
    kills = int(finished(python(KILLS, tmp_path / "killed")))
    assert kills > 40
    wanted = visible(tmp_path / "killed" / str(kills))
    for at in range(kills):
        folder = tmp_path / "killed" / str(at)
        for path, content in visible(folder).items():
            assert content == wanted[path], f"torn {path} after a kill at call {at}"
        run = opened(folder)
        with run.lock():
            assert staged(folder) == []
            assert set(run.committed(verify=True)) <= {"a"}
            run.record_parts(run.workshop(PROVENANCE).publish("a", tables("a", 1)), {"seen": 1})
            run.finish({"shards": ["a"]})
        assert visible(folder) == wanted
        assert list((folder / "_meta/staging").iterdir()) == []
