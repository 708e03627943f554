"""The codes table as flat arrays: every active slot of a site, vectorised, no loop over cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SIGNALS, SITE_COLUMNS, STREAMS, Site
from gazetteer.data.tables.schemas import BEFORE_STREAMS


def site_of(block: str, branch: str, t: float, stream: str = STREAMS[0], signal: str = SIGNALS[0]) -> Site:
    """The site of a table row: t is stored as float32, so 0.1 reads 0.100000001; six decimals undo that."""
    return Site(block, branch, round(float(t), 6), stream, signal)


def site_of_row(row: Mapping[str, Any]) -> Site:
    """The site that the columns `SITE_COLUMNS` of a table row name."""
    return site_of(**{name: row[name] for name in SITE_COLUMNS})


def site_arrays(site: Site, count: int) -> dict[str, pa.Array]:
    """The columns `SITE_COLUMNS` of `count` rows of one site, in the types of every table."""
    named = {name: pa.repeat(value, count) for name, value in site.columns().items() if name != "t"}
    return {**named, "t": pa.array(np.full(count, site.t, np.float32))}


def same_site(site: Site) -> Site:
    """`site` as it reads back from a table, so that both compare equal."""
    return site.at(round(float(np.float32(site.t)), 6))


def site_order(site: Site) -> tuple[str, str, str, str, float]:
    """Sort key of sites in every table: block, stream, signal, branch, then t from the first sampler step down."""
    return (*site.place, -site.t)


def array_of(column: pa.ChunkedArray) -> pa.Array:
    """The column as one contiguous array."""
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def rows_by_site(table: pa.Table) -> dict[Site, NDArray[np.int64]]:
    """Row numbers of every site of a table with the columns `SITE_COLUMNS`, sites in table order.

    A table that was read by hand from an older run has no streams and signals: they are the usual ones.
    """
    if not table.num_rows:
        return {}
    names = [name for name in SITE_COLUMNS if name in table.column_names or name not in BEFORE_STREAMS]
    ids = np.zeros(table.num_rows, np.int64)
    for name in names:
        encoded = array_of(table[name]).dictionary_encode()
        ids = ids * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(ids, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(ids[order])) + 1)
    first = table.select(names).take([int(group[0]) for group in groups]).to_pylist()
    by_site = {site_of(**row): group for row, group in zip(first, groups, strict=True)}
    return {site: by_site[site] for site in sorted(by_site, key=site_order)}


@dataclass(frozen=True)
class SiteCodes:
    """Every active slot of a site, flat, ordered by image, then feature, then cell.

    Attributes:
        site: where.
        image_ids: the images at the site, sorted; `image` counts in this order.
        height, width: the grid.
        image, feature, cell: int32 [E].
        value: float32 [E], all > 0.
        ignored: bool [E], slots of cells of which nobody decided what they show (of given pictures); None: no slot is.
    """

    site: Site
    image_ids: tuple[str, ...]
    height: int
    width: int
    image: NDArray[np.int32]
    feature: NDArray[np.int32]
    cell: NDArray[np.int32]
    value: NDArray[np.float32]
    ignored: NDArray[np.bool_] | None = None

    @property
    def cells(self) -> int:
        """Cells of the grid."""
        return self.height * self.width

    def among(self, low: int, high: int) -> SiteCodes:
        """The slots of the features from `low` to `high` alone; the images stay."""
        return self._only((self.feature >= low) & (self.feature < high))

    def judged(self) -> SiteCodes:
        """The slots of cells that somebody decided on: what is counted where codes are compared with masks.

        Not for tests against chance: the cells that are missing here are those in which the picture's masks have no
        pixels, so that whatever fires would overlap with the masks of its own picture more than with another's.
        """
        return self if self.ignored is None else replace(self._only(~self.ignored), ignored=None)

    def undecided(self) -> SiteCodes:
        """The other slots: of cells of which nobody decided what they show."""
        return self._only(np.zeros(len(self.value), np.bool_) if self.ignored is None else self.ignored)

    def _only(self, kept: NDArray[np.bool_]) -> SiteCodes:
        if kept.all():
            return self
        names = ("image", "feature", "cell", "value")
        ignored = None if self.ignored is None else self.ignored[kept]
        own = {name: getattr(self, name)[kept] for name in names}
        return replace(self, **own, ignored=ignored if ignored is not None and ignored.any() else None)

    def pair_starts(self) -> NDArray[np.int64]:
        """Where each (image, feature) run begins in the flat arrays: int64 [pairs]."""
        if not len(self.image):
            return np.zeros(0, np.int64)
        fresh = (np.diff(self.image) != 0) | (np.diff(self.feature) != 0)
        return np.concatenate(([0], np.flatnonzero(fresh) + 1))


def _flatten(column: pa.ChunkedArray) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Values of a list column and the length of every row."""
    array = array_of(column)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    return array.flatten().to_numpy(zero_copy_only=False), lengths.astype(np.int64)


def flat_codes(
    site: Site,
    image_ids: list[str],
    grid: tuple[int, int],
    feature: NDArray[np.generic],
    value: NDArray[np.generic],
    slots: NDArray[np.int64],
    among: tuple[int, int] | None = None,
) -> SiteCodes:
    """Flat, ordered codes of one site from the concatenated slots of its images.

    Args:
        site: where.
        image_ids: one an image, in any order, without repeats.
        grid: (height, width).
        feature, value: the images' slots end to end, k a cell, cells row-major; negative as in `SparseMap`.
        slots: int64 [images], slots of each image; a multiple of the number of cells (k may differ by image).
        among: the features from the first to the second number alone (`SiteCodes.among`); None: all.
    Raises:
        InputError: an image occurs twice, or its slots do not fill the grid.
    """
    cells = grid[0] * grid[1]
    if len(set(image_ids)) != len(image_ids):
        raise InputError(f"An image occurs twice in the codes of {site.slug}.")
    if len(feature) != len(value) or (slots % max(cells, 1)).any() or slots.sum() != len(feature):
        raise InputError(f"Codes of {site.slug} do not fill a grid of {grid[0]}x{grid[1]} cells with k slots each.")
    by_id = sorted(range(len(image_ids)), key=image_ids.__getitem__)
    rank = np.empty(len(image_ids), np.int32)
    rank[by_id] = np.arange(len(image_ids), dtype=np.int32)
    if among is None:
        active = np.flatnonzero(np.not_equal(value, 0))
    else:
        inside = np.flatnonzero(np.greater_equal(feature, among[0]) & np.less(feature, among[1]))
        active = inside[np.not_equal(value[inside], 0)]
    owner = np.repeat(np.arange(len(slots)), slots)[active]
    starts, k = np.cumsum(slots) - slots, np.maximum(slots // cells, 1)
    cell = ((active - starts[owner]) // k[owner]).astype(np.int32)
    image, number = rank[owner], feature[active].astype(np.int32)
    key = (image.astype(np.int64) * (int(number.max(initial=0)) + 1) + number) * cells + cell
    order = np.argsort(key, kind="stable")
    image, number, cell = image[order], number[order], cell[order]
    values = value[active][order].astype(np.float32)
    negative = values < 0
    ignored = negative if negative.any() else None
    values = values if ignored is None else np.abs(values)
    # A feature listed twice in a cell counts as its sum, as it would when decoded.
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (np.diff(image) != 0) | (np.diff(number) != 0) | (np.diff(cell) != 0)
    if not fresh.all():
        values = np.add.reduceat(values, np.flatnonzero(fresh))
        image, number, cell = image[fresh], number[fresh], cell[fresh]
        ignored = None if ignored is None else ignored[fresh]
    ids = tuple(image_ids[i] for i in by_id)
    return SiteCodes(same_site(site), ids, *grid, image, number, cell, values, ignored)


def join_codes(parts: Sequence[SiteCodes]) -> SiteCodes:
    """The codes of one site from those of disjoint sets of its images, at least one.

    Raises:
        InputError: several grids, or an image twice.
    """
    grids = {(part.height, part.width) for part in parts}
    site = parts[0].site
    if len(grids) != 1:
        raise InputError(f"Codes of {site.slug} have several grids: {sorted(grids)}; one site needs one.")
    ids = np.array([name for part in parts for name in part.image_ids], np.str_)
    by_id = np.argsort(ids, kind="stable")
    if (ids[by_id][1:] == ids[by_id][:-1]).any():
        raise InputError(f"An image occurs twice in the codes of {site.slug}.")
    sizes = np.concatenate([np.bincount(part.image, minlength=len(part.image_ids)) for part in parts])
    starts, moved = np.cumsum(sizes) - sizes, sizes[by_id]
    order = np.repeat(starts[by_id] - (np.cumsum(moved) - moved), moved) + np.arange(moved.sum())
    image = np.repeat(np.arange(len(ids), dtype=np.int32), moved)
    feature, cell, value = (
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("feature", "cell", "value")
    )
    ignored = None
    if any(part.ignored is not None for part in parts):
        own = [np.zeros(len(part.image), np.bool_) if part.ignored is None else part.ignored for part in parts]
        ignored = np.concatenate(own)[order]
    return SiteCodes(site, tuple(ids[by_id].tolist()), *grids.pop(), image, feature, cell, value, ignored)


def compacted(numbers: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct numbers, ascending, and where each of `numbers` (>= 0, not much larger than many) stands in them."""
    seen = np.bincount(numbers) > 0
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[numbers]


CODE_COLUMNS = ("image_id", "height", "width", "feature", "value")
"""What is read of the rows of a site whose name is known."""


def codes_of_rows(table: pa.Table, site: Site, rows: NDArray[np.int64]) -> SiteCodes:
    """The codes of the given rows of a codes table, which all belong to `site`."""
    return codes_of_table(table.select(CODE_COLUMNS).take(pa.array(rows)), site)


def codes_of_table(part: pa.Table, site: Site, among: tuple[int, int] | None = None) -> SiteCodes:
    """The codes of a table of `CODE_COLUMNS`, whose rows all belong to `site`.

    Args:
        among: the features from the first to the second number alone; None: all.
    """
    grids = set(zip(part["height"].to_pylist(), part["width"].to_pylist(), strict=True))
    if len(grids) != 1:
        raise InputError(f"Codes of {site.slug} have several grids: {sorted(grids)}; one site needs one.")
    feature, slots = _flatten(part["feature"])
    value, value_slots = _flatten(part["value"])
    if not np.array_equal(slots, value_slots):
        raise InputError(f"Codes of {site.slug} hold rows with unequal numbers of features and values.")
    return flat_codes(site, part["image_id"].to_pylist(), grids.pop(), feature, value, slots, among)


def codes_by_site(codes: pa.Table) -> dict[Site, SiteCodes]:
    """Every site's codes from a codes table (schemas.CODES), sites in table order; row order is immaterial.

    Raises:
        InputError: a site with several grids, an image twice, or a row whose slots do not fill its grid.
    """
    return {site: codes_of_rows(codes, site, rows) for site, rows in rows_by_site(codes).items()}
