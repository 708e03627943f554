"""Files of a run that are damaged in place: giving the same command once more comes to the undamaged tables."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gazetteer import load_labels
from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.data.tables.provenance import with_provenance
from gazetteer.data.tables.schemas import FINAL_TABLES, LABELLING_TABLES, LABELS, PAIRS, SCHEMA_VERSION
from gazetteer.jobs.label.run import LabelRun
from tests.support.system.running import FEW, digests, in_process

SINCE_THEN = [name for name in LABELS.names if name not in PAIRS.names and name not in ("rank", "kind")]


def again(run: Path, code: int = 0) -> str:
    """Run the command on the run; what it said."""
    done = in_process("label", "--out", str(run), "--set", *FEW, "executor=serial")
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undamaged") / "run"
    again(run)
    return run


@pytest.fixture
def run(undamaged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undamaged, tmp_path / "run"))


def flip(path: Path, count: int = 40) -> None:
    """Turn bytes in the middle of a file over; its size stays."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + count] = bytes(byte ^ 255 for byte in content[middle : middle + count])
    path.write_bytes(content)


def part_of_each_table(run: Path) -> list[Path]:
    """One part of every table, of another shard each as far as there are."""
    parts = {table: sorted((run / table).glob("*.parquet")) for table in LABELLING_TABLES}
    return [found[at % len(found)] for at, found in enumerate(parts.values())]


def test_parts_of_an_unfinished_run_are_done_again(run: Path, undamaged: Path) -> None:
    for part in part_of_each_table(run):
        flip(part)
    (run / "_meta/_SUCCESS").unlink()
    again(run)
    assert digests(run) == digests(undamaged)
    assert RunFolder(run).check().problems == []


def test_a_part_damaged_while_the_run_goes_on_is_done_again_before_it_ends(
    run: Path, undamaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out, calls = LabelRun.carry_out, []

    def damaging(self: LabelRun, *arguments: Any) -> None:
        carry_out(self, *arguments)
        calls.append(arguments)
        if len(calls) == 1:
            flip(sorted(run.glob("images/*.parquet"))[0])  # pictures are read by nothing that comes later

    monkeypatch.setattr(LabelRun, "carry_out", damaging)
    (run / "_meta/_SUCCESS").unlink()
    again(run)
    assert len(calls) == 2
    assert digests(run) == digests(undamaged)


@pytest.mark.parametrize("name", FINAL_TABLES)
@pytest.mark.parametrize("how", [flip, lambda path: path.write_bytes(path.read_bytes()[:4]), os.remove])
def test_final_tables_of_a_finished_run_are_made_again(run: Path, undamaged: Path, name: str, how: Any) -> None:
    how(run / f"{name}.parquet")
    again(run)
    assert digests(run) == digests(undamaged)
    assert RunFolder(run).is_complete()


def test_readers_say_what_helps(run: Path, undamaged: Path) -> None:
    (run / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"labels.parquet is .*corrupt.*; run gazetteer label again, which makes it"):
        load_labels(run)
    flip(sorted((run / "segments").glob("*.parquet"))[0])
    with pytest.raises(InputError, match=rf"segments/.*; run gazetteer verify {run} --drop, then run gazetteer label"):
        RunFolder(run).read_table("segments")
    assert in_process("verify", str(run), "--drop").returncode == 1
    again(run)
    assert digests(run) == digests(undamaged)


def written_earlier(run: Path) -> None:
    """Make the final tables those of schema 1, which had no IoU above a threshold, and the manifest vouch for them."""
    manifest = json.loads((run / "_meta/manifest.json").read_text())
    for name in ("labels", "candidates"):
        path = run / f"{name}.parquet"
        table = with_provenance(pq.read_table(path).drop_columns(SINCE_THEN), {"schema_version": 1})
        pq.write_table(table, path)
        manifest["tables"][name].update(bytes=path.stat().st_size, sha256=digest_bytes(path.read_bytes()))
    content = json.dumps(manifest).encode()
    (run / "_meta/manifest.json").write_bytes(content)
    (run / "_meta/_SUCCESS").write_text(digest_bytes(content))


def test_final_tables_of_an_older_schema_are_said_to_be_and_made_again(run: Path, undamaged: Path) -> None:
    written_earlier(run)
    assert RunFolder(run).is_complete()
    says = f"labels.parquet was written with schema 1, this program reads {SCHEMA_VERSION}; run gazetteer label on it"
    for columns in (None, ["concept", "top_iou"]):
        with pytest.raises(InputError, match=says):
            load_labels(run, columns=columns)
    assert load_labels(run, columns=["concept", "dataset_iou"]).equals(
        load_labels(undamaged, columns=["concept", "dataset_iou"])
    )
    done = in_process("quality", str(run))
    assert (done.returncode, "schema 1" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    again(run)
    assert digests(run) == digests(undamaged)


def drop_an_item(plan: Path) -> None:
    """Take the last picture out of a plan and seal it anew, as one who means to would."""
    there = unseal(plan.read_bytes())
    assert there is not None
    there["items"][-1]["prompt"] = "a dog"
    plan.write_bytes(seal(there))


@pytest.mark.parametrize("name", ["plan-1.json", "plan-2.json"])
@pytest.mark.parametrize(
    "how",
    [lambda plan: plan.write_text(""), lambda plan: plan.write_text(plan.read_text().replace('"seed": ', '"seed": 1')),
     drop_an_item],
)  # fmt: skip
def test_a_plan_that_was_touched_is_refused_and_made_again_once_removed(
    run: Path, undamaged: Path, name: str, how: Any
) -> None:
    plan = run / "_meta" / name
    how(plan)
    (run / "_meta/_SUCCESS").unlink()
    said = again(run, code=2)
    assert "plan" in said and "edited" in said, said
    plan.unlink()
    again(run)
    assert digests(run) == digests(undamaged)


def test_shards_of_other_settings_are_not_counted_in(run: Path, undamaged: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    done = in_process("label", "--out", str(other), "--set", *FEW, "executor=serial", "generation.guidance=3")
    assert done.returncode == 0, done.stderr
    shutil.copytree(
        other, run, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run.json", "manifest.json", "*.jsonl")
    )
    assert "other settings" in again(run, code=2)
    assert in_process("verify", str(run), "--drop").returncode == 1
