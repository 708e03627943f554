"""Shards put together: every row once, for every reader, wherever the process that does it is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.data.tables.schemas import FINAL_TABLES, PART_TABLES
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.fingerprint import picture_digest
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.operate.compact import compact
from gazetteer.jobs.operate.status import status
from gazetteer.jobs.operate.verify import verify
from tests.support.runs.runs import commit, evidence, failures, parts, rewrite
from tests.support.system.running import ROOT

TABLES = ("images", "codes", "segments", "evidence", "failures")


def finished(folder: Path, shards: int = 5) -> RunFolder:
    """A finished run of two passes; no picture failed."""
    store = RunFolder(folder).open_or_create({})
    items = plan.make_items([f"a dog {number}" for number in range(2 * shards)], 0, picture_digest({}))
    cut = 2 * (shards - 1)
    passes = (plan.write_pass(store, "plan-1", items[:cut], 2), plan.write_pass(store, "plan-2", items[cut:], 2))
    for number, shard in enumerate(shard for one in passes for shard in one):
        names = [item.image_id for item in shard.items]
        rows = [parts(2 * number + at) for at in range(2)]
        tables = {table: pa.concat_tables([row[table] for row in rows]) for table in ("images", "codes", "segments")}
        renamed = {
            t: one.set_column(one.column_names.index("image_id"), "image_id", pa.array(names))
            for t, one in tables.items()
        }
        renamed |= {"evidence": evidence(number + 1), "failures": failures().slice(0, 0)}
        info = {"images": 2, "failures": 0, "segments": 2, "seconds": {"generate": 0.5}}
        store.commit_shard(shard.id, renamed, info, {})
    written = {name: store.write_final(name, schema.empty_table(), {}) for name, schema in FINAL_TABLES.items()}
    store.finish({"shards": store.shard_ids(), "tables": written, "images": 2 * shards, "failing": []})
    return store


def content(store: RunFolder) -> dict[str, list[str]]:
    """Every row of every table, whatever their order, as Gazetteer reads them."""
    return {name: sorted(map(repr, store.read_table(name).to_pylist())) for name in TABLES}


def test_every_reader_reads_the_same_from_fewer_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = finished(tmp_path / "run")
    before, plainly = content(store), {name: pq.read_table(tmp_path / "run" / name).num_rows for name in TABLES}
    files = len(list((tmp_path / "run" / "codes").iterdir()))
    assert (files, verify(tmp_path / "run")["verdict"]) == (5, "sound")
    assert main(["compact", str(tmp_path / "run"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (printed["groups"], printed["shards"], printed["files_before"], printed["files_after"]) == (1, 4, 25, 10)
    # The second pass is one shard, which stays as it is.
    assert len(list((tmp_path / "run" / "codes").iterdir())) == 2
    assert content(store) == before
    assert {name: pq.read_table(tmp_path / "run" / name).num_rows for name in TABLES} == plainly
    report = verify(tmp_path / "run")
    assert (report["verdict"], report["problems"], report["failing"]) == ("sound", [], 0)
    assert status(tmp_path / "run")["shards"]["done"] == 5
    assert store.is_complete()
    # Codes of one site are one row group of the file, and nothing is left to do.
    (large,) = store.grouped()
    assert pq.ParquetFile(tmp_path / "run" / "codes" / f"part-{large}.parquet").num_row_groups == 1
    assert compact(tmp_path / "run")["files_before"] == 10


KILLED = """
import os, signal, sys
from gazetteer.data.runs.shards.commits import Commits
from gazetteer.jobs.operate.compact import compact

stage, after = sys.argv[2], int(sys.argv[3])
real, calls = getattr(Commits, stage), []

def counted(self, *arguments):
    found = real(self, *arguments)
    calls.append(1)
    if len(calls) == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

setattr(Commits, stage, counted)
compact(sys.argv[1], megabytes=1)
"""


@pytest.mark.parametrize("stage", [("record_parts", 1), ("drop", 1), ("drop", 3), ("remove_orphans", 1)])
def test_killed_anywhere_every_row_counts_once_and_the_same_command_goes_on(
    tmp_path: Path, stage: tuple[str, int]
) -> None:
    store = finished(tmp_path / "run")
    before = content(store)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), stage[0], str(stage[1])]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert content(store) == before
    assert not store.is_complete()
    compact(tmp_path / "run")
    assert content(store) == before
    assert verify(tmp_path / "run")["verdict"] == "sound"
    assert {name: len(list((tmp_path / "run" / name).iterdir())) for name in TABLES} == dict.fromkeys(TABLES, 2)


def test_what_is_no_finished_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no finished run"):
        compact(tmp_path / "nothing")
    store = finished(tmp_path / "run")
    with pytest.raises(InputError, match="at least 1"):
        compact(tmp_path / "run", megabytes=0)
    store.clear_success()
    with pytest.raises(InputError, match="is no finished run"):
        compact(tmp_path / "run")
    assert store.grouped() == {}


def test_a_damaged_group_is_found_and_its_shards_are_missing(tmp_path: Path) -> None:
    store = finished(tmp_path / "run")
    compact(tmp_path / "run")
    (name,) = store.grouped()
    part = tmp_path / "run" / "images" / f"part-{name}.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    report: dict[str, Any] = verify(tmp_path / "run", drop=True)
    assert report["verdict"] == "damaged"
    assert store.grouped() == {}
    assert len(store.shard_ids()) == 1  # label makes the four others anew


@pytest.mark.parametrize("since", ["dropped", "tried again", "to be tried again", "labelled anew"])
def test_a_run_that_something_else_left_unfinished_is_not_marked_as_finished(tmp_path: Path, since: str) -> None:
    """Its tables are of other shards than there are; a compaction that was cut off lacks the mark in the same way."""
    store = finished(tmp_path / "run")
    compact(tmp_path / "run")
    (group,) = store.grouped()
    if since == "dropped":
        part = tmp_path / "run" / "images" / f"part-{group}.parquet"
        part.write_bytes(part.read_bytes()[:-1] + b"x")
        verify(tmp_path / "run", drop=True)
    else:
        store.clear_success()
        if since == "tried again":
            commit(store, "a" * 16)
        elif since == "to be tried again":
            plan.write_pass(store, "retry-1", (plan.read_pass(store, "plan-1") or [])[0].items[:1], 0)
        else:
            store.write_final("labels", FINAL_TABLES["labels"].empty_table(), {"fingerprint": {}, "schema_version": 5})
    assert "run gazetteer label on it" in store.how_to_finish()
    with pytest.raises(InputError, match=r"is not as it finished.*run gazetteer label"):
        compact(tmp_path / "run")
    assert not store.is_complete()


def test_only_what_was_put_together_is_laid_to_a_compaction(tmp_path: Path) -> None:
    store = finished(tmp_path / "run")
    store.clear_success()
    commit(store, "a" * 16)  # of a retry, say
    assert store.how_to_finish() == "run gazetteer label on it"


def lost(path: Path) -> None:
    path.unlink()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def of_no_group(path: Path) -> None:
    """Whole, of this run, and made before any shard was put together."""
    path.write_bytes(seal({**(unseal(path.read_bytes()) or {}), "groups": {}}))


@pytest.mark.parametrize("spoil", [lost, torn, of_no_group])
@pytest.mark.parametrize("stage", [None, ("drop", 1)])
def test_a_plan_that_is_damaged_or_gone_is_written_anew_from_the_records(
    tmp_path: Path, spoil: Callable[[Path], None], stage: tuple[str, int] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    store = finished(tmp_path / "run")
    before, path = content(store), tmp_path / "run/_meta/groups.json"
    if stage is None:
        compact(tmp_path / "run")
    else:  # the group has its record, and most shards in it still have theirs: without the plan, rows would count twice
        command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), stage[0], str(stage[1])]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    groups = store.grouped()
    assert len(groups) == 1
    spoil(path)
    with pytest.raises(InputError, match=r"groups\.json .*run gazetteer compact .*from the records"):
        store.committed()
    with pytest.raises(InputError, match=r"groups\.json .*run gazetteer compact"):
        store.read_table("images")
    main(["verify", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert "groups.json" in said.out + said.err and "gazetteer compact" in said.out + said.err
    assert main(["compact", str(tmp_path / "run")]) == 0
    assert (store.grouped(), content(store)) == (groups, before)
    assert verify(tmp_path / "run")["verdict"] == "sound"
    assert compact(tmp_path / "run")["files_before"] == 10


def test_a_damaged_plan_of_groups_that_were_never_made_is_made_again(tmp_path: Path) -> None:
    store = finished(tmp_path / "run")
    before = content(store)
    store.write_plan("groups", {"groups": {"0" * 32: store.shard_ids()[:2]}})
    torn(tmp_path / "run/_meta/groups.json")
    assert compact(tmp_path / "run")["groups"] == 1
    assert content(store) == before and verify(tmp_path / "run")["verdict"] == "sound"


def test_a_damaged_shard_is_refused_and_kept(tmp_path: Path) -> None:
    """Put together, its rows would be gone, and the run would say that it is finished."""
    store = finished(tmp_path / "run")
    file = min((tmp_path / "run" / "codes").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9] + b"xxxxxxxxx")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    with pytest.raises(InputError, match=r"is damaged \(codes/part-.* gazetteer verify .* --drop, then"):
        compact(tmp_path / "run")
    assert {path: path.read_bytes() for path in before} == before
    assert store.is_complete()


def test_parts_of_an_older_version_are_put_together_with_todays(tmp_path: Path) -> None:
    """A run that was begun before tables named streams and words, and was finished since: absent columns are filled."""
    store = finished(tmp_path / "run")
    first = (plan.read_pass(store, "plan-1") or [])[0].id
    for table in ("images", "codes", "evidence"):
        lacking = [name for name in ("stream", "signal", "words") if name in PART_TABLES[table].names]
        rewrite(tmp_path / f"run/{table}/part-{first}.parquet", lambda rows: rows.drop_columns(lacking))  # noqa: B023
    before = content(store)
    compacted = compact(tmp_path / "run")
    assert compacted["shards"] == 4 and verify(tmp_path / "run")["verdict"] == "sound"
    assert content(store) == before
    for table in ("images", "codes", "evidence"):
        for part in (tmp_path / "run" / table).glob("*.parquet"):
            assert pq.read_schema(part).remove_metadata().equals(PART_TABLES[table])
