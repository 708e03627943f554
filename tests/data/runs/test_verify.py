"""`gazetteer verify`: what is damaged is named, what it advises mends the run, and nothing is touched unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.jobs.operate.verify import verify
from tests.support.runs.runs import commit, failures, finished_run, rewrite
from tests.support.system.running import digests, gazetteer, in_process, label

CAT = "images/part-cat.parquet"
LEFT = "images/part-0123456789abcdef.parquet"
"""As a writer leaves it that was killed before its record."""


@pytest.fixture
def run(scenes_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes_run, tmp_path / "run"))


def first(run: Path, table: str) -> Path:
    return sorted((run / table).glob("*.parquet"))[0]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def recount(path: Path) -> None:
    record = unseal(path.read_bytes())
    assert record is not None
    record["info"]["images"] += 1
    path.write_bytes(seal(record))


def test_a_sound_run_is_called_so_and_not_touched(scenes_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in scenes_run.rglob("*")}
    done = gazetteer("verify", str(scenes_run), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["verdict"], report["problems"]) == ("sound", [])
    assert (report["shards"], report["planned"], report["rows"]["images"], report["rows"]["codes"]) == (4, 4, 16, 384)
    assert report["bytes"] > sum(path.stat().st_size for path in scenes_run.rglob("*.parquet"))
    assert {path: path.stat().st_mtime_ns for path in scenes_run.rglob("*")} == before


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        (lambda run: cut(first(run, "segments")), "segments/part-", "has 100 bytes"),
        (lambda run: flip(first(run, "codes")), "codes/part-", "was altered"),
        (lambda run: first(run, "images").unlink(), "images/part-", "is missing"),
        (lambda run: flip(run / "features.parquet"), "features.parquet", "was altered"),
        (lambda run: (run / "labels.parquet").unlink(), "labels.parquet", "is missing"),
        (lambda run: sorted(run.glob("_meta/commits/*"))[0].unlink(), "_meta/commits/", "is missing"),
        (lambda run: sorted(run.glob("_meta/commits/*"))[0].write_text("{"), "_meta/commits/", "is not a commit"),
        (lambda run: recount(sorted(run.glob("_meta/commits/*"))[0]), "_meta/commits/", "counts 5 images"),
        (lambda run: (run / "_meta/manifest.json").write_text("{}"), "_meta/manifest.json", "not the one"),
        (lambda run: (run / "_meta/plan-2.json").write_text("{}"), "_meta/plan-2.json", "is damaged; remove it"),
        (lambda run: (run / "images/notes.txt").write_text("x"), "images/notes.txt", "is no part of the run"),
        (lambda run: shutil.copy(first(run, "images"), run / CAT), CAT, "is no part"),
        (lambda run: shutil.copy(first(run, "images"), run / LEFT), LEFT, "not counted"),
    ],
)  # fmt: skip
def test_whatever_is_not_as_recorded_is_named(
    run: Path, damage: Callable[[Path], object], where: str, what: str
) -> None:
    damage(run)
    report = verify(run)
    assert report["verdict"] == "damaged"
    assert any(p["where"].startswith(where) and what in p["what"] for p in report["problems"]), report["problems"]
    again = f"remove {where}; nothing else" if "is no part" in what else f"gazetteer label --out {run}"
    assert again in report["advice"]


def test_a_part_its_record_vouches_for_is_still_held_to_its_schema_and_its_run(run: Path) -> None:
    part = first(run, "failures")
    where = rewrite(part, lambda table: table.drop_columns(["attempts"]).append_column("tries", table["attempts"]))
    assert [(p["where"], p["what"]) for p in verify(run)["problems"]] == [
        (where, "does not have the schema of its table")
    ]
    other = json.dumps({"schema_version": 1, "fingerprint": {"seed": 9}})
    rewrite(part, lambda table: failures()[:0].replace_schema_metadata({"gazetteer": other}))
    assert [p["what"] for p in verify(run)["problems"]] == ["was written by a run with other settings"]


def test_a_picture_that_was_not_planned_is_found(run: Path) -> None:
    def other(table: pa.Table) -> pa.Table:
        ids = ["0" * 16, *table["image_id"].to_pylist()[1:]]
        return table.set_column(0, table.schema.field(0), pa.array(ids))

    shard = rewrite(first(run, "images"), other).removeprefix("images/part-").removesuffix(".parquet")
    (problem,) = verify(run)["problems"]
    assert problem["shard"] == shard
    assert "2 pictures, the first 0000000000000000" in problem["what"]


def test_what_it_advises_mends_the_run(run: Path, scenes_run: Path) -> None:
    """Altered bytes of the right length: the one damage that resuming a finished run does not see."""
    flip(first(run, "codes"))
    flip(sorted((run / "images").glob("*.parquet"))[-1])  # in a picture, which nothing of the job reads again
    cut(run / "candidates.parquet")
    shutil.copy(first(run, "images"), run / LEFT)
    done = in_process("verify", str(run))
    assert done.returncode == 1
    assert "run gazetteer verify" in done.stdout.splitlines()[-1]
    done = in_process("verify", str(run), "--drop")
    assert done.returncode == 1, "what it found was damaged"
    assert "it computes 2 shards and" in done.stdout.splitlines()[-1]
    assert in_process("verify", str(run)).returncode == 3, "unfinished now, and nothing damaged"
    done = label(run, "executor=serial")
    assert done.returncode == 0, done.stderr
    assert verify(run)["verdict"] == "sound"
    assert digests(run) == digests(scenes_run)


def test_what_no_command_writes_again_is_to_be_removed(run: Path) -> None:
    for name in ("causal.parquet", "mine.parquet"):
        (run / name).write_bytes(b"no table")
    report = verify(run)
    assert report["verdict"] == "damaged"
    assert report["advice"] == (
        f"remove causal.parquet, mine.parquet (gazetteer causal {run} writes causal.parquet again); "
        "nothing else is damaged."
    )
    for name in ("causal.parquet", "mine.parquet"):
        (run / name).unlink()
    assert verify(run)["verdict"] == "sound"


def test_drop_respects_the_lock(run: Path) -> None:
    cut(first(run, "images"))
    with RunFolder(run).lock():
        assert gazetteer("verify", str(run), "--drop").returncode == 75
    assert len(list(run.glob("_meta/commits/*.json"))) == 4


def test_what_is_no_run_is_bad_input(tmp_path: Path) -> None:
    done = gazetteer("verify", str(tmp_path))
    assert done.returncode == 2
    assert "is not a run" in done.stderr
    (tmp_path / "_meta").mkdir()
    (tmp_path / "_meta/run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json is corrupt"):
        verify(tmp_path)


def test_a_run_behind_a_url_is_checked_the_same() -> None:
    run = finished_run("memory://verified")
    assert run.check().problems == []
    assert run.check().rows["images"] == 2
    commit(RunFolder("memory://verified"), "late")
    assert [problem.what for problem in run.check().problems] == ["is a shard that the finished tables do not know"]
    record = unseal(run._files.read("_meta/commits/s0.json"))
    assert record is not None
    record["tables"]["images"]["rows"] = 7
    run._files.replace("_meta/commits/s0.json", seal(record))
    assert "has 1 rows, its record says 7" in [problem.what for problem in run.check().problems]
