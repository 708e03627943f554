"""What failed is tried again in shards of the run's size, whatever version wrote the plan of it down."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from gazetteer.data.inputs.prompts import Item, shards_of
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import picture_digest
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.operate.status import status
from tests.support.runs.runs import PROVENANCE, parts

BEGUN = {"seed": 0, "shard_size": 2}


def folder(path: Path) -> tuple[RunFolder, list[Item]]:
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
    store, items = folder(tmp_path / "run")
    shards = plan.write_pass(store, "retry-1", items, 2)
    assert [len(shard.items) for shard in shards] == [2, 2, 2, 1]
    assert [shard.id for shard in shards] == [f"{shard.id}-retry-1" for shard in shards_of(items, 2)]
    assert plan.read_pass(store, "retry-1") == shards
    assert status(store.path)["shards"]["total"] == 4


def test_the_one_shard_of_a_retry_that_an_older_version_planned_keeps_its_name(tmp_path: Path) -> None:
    store, items = folder(tmp_path / "run")
    (shard,) = plan.write_pass(store, "retry-1", items, 0)
    assert (shard.id, len(shard.items)) == (f"{shards_of(items, 7)[0].id}-retry-1", 7)
    assert plan.write_pass(store, "retry-2", [], 0) == []


def test_pictures_that_came_through_elsewhere_leave_a_retry_and_the_shards_before_them_stay(tmp_path: Path) -> None:
    """Two shards of the retry are there; then the last of their pictures is made by a shard that is computed anew."""
    store, items = folder(tmp_path / "run")
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
