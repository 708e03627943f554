"""Too much that fails ends a run as soon as that is certain; what failed is tried again in shards of its size."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.inputs.prompts import Item, shards_of
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import FAILURES
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.fingerprint import picture_digest
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.label.failures import SAMPLE, Tally
from gazetteer.jobs.operate.status import status
from tests.support.runs.runs import PROVENANCE, parts
from tests.support.system.running import FEW


def folder(path: Path, failed: int, total: int) -> RunFolder:
    """A run of one shard with `total` pictures, of which the last `failed` failed."""
    run = RunFolder(path)
    rows = [
        {"stage": "generate", "item": f"f{at}", "error": "ValueError", "message": "no class labels", "attempts": 1}
        for at in range(failed)
    ]
    tables = parts(0) | {"failures": pa.Table.from_pylist(rows, schema=FAILURES)}
    run.commit_shard("s0", tables, {"images": total - failed, "failures": failed}, PROVENANCE)
    return run


@pytest.mark.parametrize(
    ("failed", "tried", "total", "allowed", "ends"),
    [
        (11, 40, 200, 0.05, True),  # 11 of 200 are more than 5 %, whatever comes
        (10, 40, 200, 0.05, False),  # 10 are not
        (2, 4, 200, 0.005, False),  # too few were tried to say so
        (SAMPLE, SAMPLE, 100_000, 0.05, True),  # few of all, but nothing came through
        (SAMPLE, SAMPLE, 100_000, 1.0, False),  # all may fail
        (2, 4, 4, 0.25, True),  # a small run is tried whole
    ],
)
def test_when_a_run_is_given_up(
    tmp_path: Path, failed: int, tried: int, total: int, allowed: float, ends: bool
) -> None:
    tally = Tally(folder(tmp_path, failed, tried), total, allowed)
    if ends:
        with pytest.raises(GazetteerError, match=f"{failed} of .*{total} pictures could not be processed.*no class"):
            tally.check()
    else:
        tally.check()


def test_where_everything_fails_the_rest_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, run = tmp_path / "prompts.txt", tmp_path / "run"
    prompts.write_text("".join(f"raising poison number {at}\n" for at in range(64)))
    settings = [
        *FEW, f"prompts.path={prompts}", "images=64", "shard_size=4", "coverage.first=1.0", "generation.steps=1",
        "vocabulary.ask=both", "vocabulary.nouns=tests.support.system.toy_work:nouns", "executor=serial",
    ]  # fmt: skip
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "raising")
    command = ["label", "--out", str(run), "--set", *settings]
    assert main(command) == 1
    assert f"{SAMPLE} of the first {SAMPLE} of 64 pictures could not be processed" in capsys.readouterr().err
    assert len(list(run.glob("_meta/commits/*.json"))) == SAMPLE // 4
    assert main(command) == 1, "and not tried again by itself"
    assert len(list(run.glob("_meta/commits/*.json"))) == SAMPLE // 4
    monkeypatch.delenv("GAZETTEER_TEST_POISON")
    assert main([*command[:3], "--retry-failed", *command[3:], "labels.min_images=2"]) == 0
    assert not (run / "_meta/retry-2.json").exists(), "what failed was tried first, the rest after it"
    retries = [len(pq.read_table(part)) for part in run.glob("images/*-retry-1.parquet")]
    assert retries == [4] * (SAMPLE // 4), "as many pictures a shard as in any pass"


BEGUN = {"seed": 0, "shard_size": 2}


def begun(path: Path) -> tuple[RunFolder, list[Item]]:
    """A run that was just started, and seven items of it in the order of their ids."""
    items = plan.make_items([f"picture {number}" for number in range(7)], 0, picture_digest(BEGUN))
    return RunFolder(path).open_or_create(BEGUN), sorted(items, key=lambda item: item.image_id)


def commit(store: RunFolder, shard: str, items: list[Item]) -> None:
    """A shard that made pictures of `items`."""
    made = [parts(number) for number, _ in enumerate(items)]
    tables = {table: pa.concat_tables([part[table] for part in made]) for table in made[0]}
    for table, rows in tables.items():
        at = rows.column_names.index("image_id")
        tables[table] = rows.set_column(at, rows.schema.field(at), pa.array([item.image_id for item in items]))
    store.commit_shard(shard, tables, {"images": len(items), "failures": 0}, PROVENANCE)


def test_a_retry_is_cut_into_shards_of_its_own_names(tmp_path: Path) -> None:
    store, items = begun(tmp_path / "run")
    shards = plan.write_pass(store, "retry-1", items, 2)
    assert [len(shard.items) for shard in shards] == [2, 2, 2, 1]
    assert [shard.id for shard in shards] == [f"{shard.id}-retry-1" for shard in shards_of(items, 2)]
    assert plan.read_pass(store, "retry-1") == shards
    assert status(store.path)["shards"]["total"] == 4


def test_the_one_shard_of_a_retry_that_an_older_version_planned_keeps_its_name(tmp_path: Path) -> None:
    store, items = begun(tmp_path / "run")
    (shard,) = plan.write_pass(store, "retry-1", items, 0)
    assert (shard.id, len(shard.items)) == (f"{shards_of(items, 7)[0].id}-retry-1", 7)
    assert plan.write_pass(store, "retry-2", [], 0) == []


def test_pictures_that_came_through_elsewhere_leave_a_retry_and_the_shards_before_them_stay(tmp_path: Path) -> None:
    """Two shards of the retry are there; then the last of their pictures is made by a shard that is computed anew."""
    store, items = begun(tmp_path / "run")
    first, second, *_ = shards = plan.write_pass(store, "retry-1", items, 2)
    for shard in (first, second):
        commit(store, shard.id, list(shard.items))
    assert plan.without_made(store, "retry-1", shards) == shards
    commit(store, "a" * 16, [items[3]])
    left = plan.without_made(store, "retry-1", shards)
    assert [item for shard in left for item in shard.items] == [*items[:3], *items[4:]]
    assert [len(shard.items) for shard in left] == [2, 2, 2]
    assert plan.read_pass(store, "retry-1") == left
    assert store.shard_ids() == sorted([first.id, "a" * 16])
