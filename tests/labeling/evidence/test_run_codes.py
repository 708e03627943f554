"""Codes on disk: one row group a site, read site by site, and no more at once than was allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import Moment, SparseMap, codes_table
from gazetteer.data.tables.provenance import provenance
from gazetteer.data.tables.schemas import LABELLING_TABLES
from gazetteer.labeling.evidence.run_codes import all_codes, code_grids, site_codes
from gazetteer.labeling.evidence.site_codes import codes_by_site

SITES = [Site(block, branch, t) for block in ("down", "mid") for branch in ("cond", "uncond") for t in (1.0, 0.1, 0.0)]
GRIDS = {"down": (4, 4), "mid": (2, 2)}


def picture(rng: np.random.Generator) -> dict[Site, SparseMap]:
    maps = {}
    for site in SITES:
        height, width = GRIDS[site.block]
        feature = rng.integers(0, 9, 2 * height * width).astype(np.uint32)
        value = rng.integers(1, 5, 2 * height * width).astype(np.float16)
        maps[site] = SparseMap(height, width, 2, feature, value)
    return maps


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunFolder, pa.Table]:
    rng, store = np.random.default_rng(0), RunFolder(tmp_path / "run").open_or_create({"seed": 0})
    tables = []
    for shard in range(3):
        names = [f"{shard}-{number}" for number in reversed(range(4))]
        tables.append(codes_table(names, [picture(rng) for _ in names], {site: Moment(0, 0) for site in SITES}))
        parts = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}
        store.commit_shard(f"s{shard}", {**parts, "codes": tables[-1]}, {}, provenance({"seed": 0}, {}))
    return store, pa.concat_tables(tables)


def test_a_site_is_a_row_group(run: tuple[RunFolder, pa.Table]) -> None:
    file = pq.ParquetFile(Path(run[0].path) / "codes" / "part-s1.parquet")
    assert file.num_row_groups == len(SITES)
    for number in range(len(SITES)):
        rows = file.read_row_group(number, columns=["image_id", "block", "branch", "t"]).to_pylist()
        assert len({(row["block"], row["branch"], row["t"]) for row in rows}) == 1
        assert [row["image_id"] for row in rows] == ["1-0", "1-1", "1-2", "1-3"]


@pytest.mark.parametrize("at_once", [1, 12 * 32 * 4, 10**9])
def test_all_codes_are_those_of_the_whole_table(run: tuple[RunFolder, pa.Table], at_once: int) -> None:
    store, table = run
    wanted = codes_by_site(table)
    found = dict(all_codes(store, at_once))
    assert list(found) == list(wanted)
    for site, codes in wanted.items():
        for one in (found[site], site_codes(store, site)):
            assert (one.image_ids, one.height, one.width) == (codes.image_ids, codes.height, codes.width)
            for name in ("image", "feature", "cell", "value"):
                assert np.array_equal(getattr(one, name), getattr(codes, name))


def test_small_sites_are_read_together(run: tuple[RunFolder, pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = RunFolder.read_table

    def counted(self: RunFolder, *args: object, **settings: object) -> pa.Table:
        table = plain(self, *args, **settings)
        read.append(table.num_rows)
        return table

    monkeypatch.setattr(RunFolder, "read_table", counted)
    # A site of "down" has 12 pictures x 16 cells x 2 slots, one of "mid" a quarter of that.
    list(all_codes(run[0], at_once=2 * 12 * 32))
    assert read[1:] == [24, 24, 24, 72]


def test_grids_and_sites_that_are_not_there(run: tuple[RunFolder, pa.Table]) -> None:
    assert code_grids(run[0]) == {
        site: GRIDS[site.block] for site in sorted(SITES, key=lambda s: (s.block, s.branch, -s.t))
    }
    with pytest.raises(InputError, match="no codes at up"):
        site_codes(run[0], Site("up", "cond", 0.5))
