"""What lies in a run folder never makes us write, delete, read or wait elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import CAUSAL
from gazetteer.jobs.label.progress.logs import logging_to
from tests.support.runs.runs import PROVENANCE, candidates, finished_run, parts

FOLDERS = ["images", "codes", "_meta", "_meta/staging", "_meta/commits"]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Somebody's files, named as ours are."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("part-cat.parquet", "part-s0.parquet", "s0.json", "create.lock", f"x.{'0' * 32}", "run.json", "lock"):
        (folder / name).write_text(name)
    return folder


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def everything(run: RunFolder) -> list[str]:
    """Try all that changes a run; what was said."""
    said = []

    def locked() -> None:
        with run.lock():
            pass

    acts: list[Callable[[], object]] = [
        locked,
        lambda: run.committed(verify=True),
        lambda: run.commit_shard("s9", parts(9), {}, PROVENANCE),
        lambda: run.drop_shard("s0"),
        lambda: run.write_json("x.json", {}),
        lambda: run.write_plan("plan-1", {}),
        lambda: run.finish({"shards": ["s1"]}),
        lambda: run.clear_success(),
        lambda: run.check(),
        lambda: run.open_or_create({"config": "abc"}),
    ]
    for act in acts:
        try:
            act()
        except GazetteerError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_linked_sub_folder_is_neither_written_nor_swept_nor_read(
    tmp_path: Path, elsewhere: Path, folder: str
) -> None:
    run = finished_run(tmp_path / "run")
    place = tmp_path / "run" / folder
    shutil.rmtree(place)
    place.symlink_to(elsewhere)
    before = entries(elsewhere)
    said = everything(run)
    assert entries(elsewhere) == before
    assert any(f"{place} is a link" in one or f"{place}/lock (its folder is a link" in one for one in said), said


@pytest.mark.parametrize("name", ["lock", "run.json", "plan-1.json", "_SUCCESS", "manifest.json", "x.json"])
def test_a_linked_file_is_replaced_not_followed(tmp_path: Path, name: str) -> None:
    run = finished_run(tmp_path / "run")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "run/_meta" / name).unlink(missing_ok=True)
    (tmp_path / "run/_meta" / name).symlink_to(mine)
    everything(run)
    assert mine.read_text() == "mine"


def test_only_what_we_staged_is_swept(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    staging = tmp_path / "run/_meta/staging"
    for name in ("notes.txt", "thesis.tex", f"part-a.parquet.{'0' * 32}", "shard-s0.lock"):
        (staging / name).write_text(name)
    (staging / f"linked.{'0' * 32}").symlink_to(tmp_path / "run/_meta/run.json")
    with run.lock():
        pass
    assert sorted(entries(staging)) == [f"linked.{'0' * 32}", "notes.txt", "thesis.tex"]
    assert run.exists()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "loop"])
@pytest.mark.parametrize(
    "name", ["images/part-s0.parquet", "_meta/commits/s0.json", "_meta/run.json", "labels.parquet"]
)
def test_what_is_no_regular_file_is_refused_and_nobody_waits(tmp_path: Path, kind: str, name: str) -> None:
    run = finished_run(tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        folder = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's own path may not be long
        os.close(folder)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(path.name)
    said = []
    for act in (
        lambda: run.read_table("images"),
        lambda: run.read_table("images", columns=["seed"]),
        lambda: run.read_final("labels"),
        lambda: run.check(),
        lambda: run.open_or_create({"config": "abc"}),
    ):
        try:
            act()
        except GazetteerError as error:
            said.append(str(error))
    reported = [problem.where for problem in run.check().problems] if "run.json" not in name else []
    assert any(path.name in one for one in [*said, *reported]) or name == "_meta/commits/s0.json", said
    if name != "_meta/run.json":  # what is damaged is done again, whatever took its place
        run.committed(verify=True)
        run.commit_shard("s0", parts(0), {}, PROVENANCE)
        run.write_final("labels", candidates().drop_columns(["trusted"]), PROVENANCE)
        assert set(run.committed(verify=True)) == {"s0", "s1"}
        assert path.is_file() and not path.is_symlink()


def test_a_run_of_its_own_inside_a_run_is_no_link(tmp_path: Path, elsewhere: Path) -> None:
    run = finished_run(tmp_path / "run")
    assert run.inside("causal").path == f"{tmp_path}/run/causal"
    (tmp_path / "run/causal").symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link"):
        run.inside("causal")
    with pytest.raises(GazetteerError, match="not a usable name"):
        run.inside("../run")


def test_verify_names_whatever_readers_of_the_folder_would_also_see(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (tmp_path / "run/images/more").mkdir()
    shutil.copy(tmp_path / "run/images/part-s0.parquet", tmp_path / "run/images/more/part-s0.parquet")
    shutil.copy(tmp_path / "run/labels.parquet", tmp_path / "run/labels-old.parquet")
    (tmp_path / "run/codes/part-..parquet").write_text("")
    assert sorted(run.check().strays) == ["codes/part-..parquet", "images/more", "labels-old.parquet"]


def test_a_causal_table_is_judged_without_a_record(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    path = tmp_path / "run/causal.parquet"
    path.write_bytes(b"garbage")
    assert [(p.where, p.what.partition("(")[0]) for p in run.check().problems] == [
        ("causal.parquet", "cannot be read as a table of this run ")
    ]
    run.write_final("causal", candidates(), PROVENANCE)
    assert [p.what for p in run.check().problems] == ["does not have the schema of its table"]
    run.write_final("causal", CAUSAL.empty_table(), {"fingerprint": {"run": {"config": "other"}}})
    assert [p.what for p in run.check().problems] == ["was written for a run with other settings"]
    run.write_final("causal", CAUSAL.empty_table(), {"fingerprint": {"run": {"config": "abc"}}})
    assert run.check().problems == []


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_log_of_a_run_is_no_link_and_no_pipe(tmp_path: Path, kind: str) -> None:
    mine, log = tmp_path / "mine", tmp_path / "log.jsonl"
    mine.write_text("mine")
    log.symlink_to(mine) if kind == "link" else os.mkfifo(log)
    with logging_to(log, tmp_path / "other.jsonl"):
        logging.getLogger("gazetteer.jobs.label.job").info("run started")
    assert mine.read_text() == "mine"
    assert "run started" in (tmp_path / "other.jsonl").read_text()
