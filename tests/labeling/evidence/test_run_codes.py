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
from gazetteer.data.runs.reading import SiteRows, rows
from gazetteer.data.tables.codes import Moment, SparseMap, codes_table
from gazetteer.data.tables.provenance import provenance
from gazetteer.data.tables.schemas import LABELLING_TABLES
from gazetteer.labeling.evidence import site_sum
from gazetteer.labeling.evidence.run_codes import (
    all_codes,
    code_grids,
    range_codes,
    range_evidence,
    site_codes,
    sites_codes,
)
from gazetteer.labeling.evidence.site_codes import codes_by_site
from tests.support.runs.small_world import MID, World, sky_world

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


@pytest.mark.parametrize(("low", "high"), [(0, 4), (4, 9), (3, 3)])
def test_features_of_a_site_are_read_by_themselves(run: tuple[RunFolder, pa.Table], low: int, high: int) -> None:
    for site, whole in codes_by_site(run[1]).items():
        some, wanted = range_codes(run[0], site, low, high), whole.among(low, high)
        assert (some.image_ids, some.site) == (wanted.image_ids, wanted.site)
        for name in ("image", "feature", "cell", "value"):
            assert np.array_equal(getattr(some, name), getattr(wanted, name)), name
    with pytest.raises(InputError, match="no codes at up"):
        range_codes(run[0], Site("up", "cond", 0.5), 0, 4)


@pytest.mark.parametrize("row_group", [10**6, 7])
def test_rows_of_a_site_are_those_of_a_filter_however_row_groups_lie(
    run: tuple[RunFolder, pa.Table], tmp_path: Path, row_group: int
) -> None:
    file = tmp_path / "codes.parquet"
    table = run[1].append_column("number", pa.array(np.arange(run[1].num_rows)))
    pq.write_table(table, file, row_group_size=row_group)  # sites share row groups
    by_site = Path(run[0].path) / "codes" / "part-s0.parquet"
    for site in codes_by_site(run[1]):
        wanted = SiteRows(site.columns())
        assert rows(str(file), None, ["number"], wanted)["number"].to_pylist() == [
            number for number, row in enumerate(run[1].select(["block", "branch", "t"]).to_pylist())
            if (row["block"], row["branch"]) == (site.block, site.branch) and abs(row["t"] - site.t) < 1e-6
        ]  # fmt: skip
        groups = wanted.groups(pq.read_metadata(by_site))
        assert groups is not None and len(groups) == 1
        assert rows(str(by_site), None, None, wanted).equals(rows(str(by_site), None, None, wanted.expression))
    assert wanted.groups(pq.read_metadata(file)) is None


def test_sites_that_differ_by_two_thousandths_are_told_apart(tmp_path: Path) -> None:
    """.334 is called 0.33 and .336 is called 0.34: two sites, though less than half a hundredth lies between them."""
    store, rng = RunFolder(tmp_path / "run").open_or_create({"seed": 0}), np.random.default_rng(0)
    sites = [Site("mid", "cond", t) for t in (0.334, 0.336)]
    maps = {
        site: SparseMap(2, 2, 1, np.full(4, number, np.uint32), rng.integers(1, 5, 4).astype(np.float16))
        for number, site in enumerate(sites)
    }
    parts = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}
    codes = codes_table(["a"], [maps], {site: Moment(0, 0) for site in sites})
    store.commit_shard("s0", {**parts, "codes": codes}, {}, provenance({"seed": 0}, {}))
    for number, asked in ((0, 0.334), (1, 0.336), (0, 0.33), (1, 0.34)):
        site = Site("mid", "cond", asked)
        for found in (site_codes(store, site), range_codes(store, site, 0, 9), *sites_codes(store, [site]).values()):
            assert set(found.feature.tolist()) == {number}


def test_evidence_of_some_features_leaves_the_maps_unread(tmp_path: Path) -> None:
    world = sky_world(30)
    store = RunFolder(tmp_path / "run").open_or_create({"seed": 0})
    for third in range(3):
        part = World(world.inputs[third::3], world.base)
        tables = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}
        store.commit_shard(f"s{third}", {**tables, "evidence": part.evidence}, {}, provenance({"seed": 0}, {}))
    own = pa.array([f is None or 1 <= f < 3 for f in world.evidence["feature"].to_pylist()])
    for wanted, read in (
        (world.evidence.filter(own), range_evidence(store, MID, 1, 3)), (world.evidence, range_evidence(store, MID)),
    ):  # fmt: skip
        assert read.schema.equals(wanted.schema) and read["cells"].null_count == read.num_rows
        assert read.drop_columns("cells").equals(wanted.drop_columns("cells"))


def test_the_sum_of_a_site_does_not_depend_on_how_often_it_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = sky_world(30)
    parts = [World(world.inputs[at::5], world.base).evidence for at in (3, 0, 4, 1, 2)]
    for waiting in (0, 40, 2**20):
        monkeypatch.setattr(site_sum, "_WAITING", waiting)
        total = site_sum.SiteSum(MID)
        for part in [*parts, parts[0].slice(0, 0)]:
            total.add(part)
        assert total.table().drop_columns("cells").equals(world.evidence.drop_columns("cells"))
    assert site_sum.SiteSum(MID).table().equals(LABELLING_TABLES["evidence"].empty_table())


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
