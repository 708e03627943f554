"""Evidence rows as arrays: the canonical row order, the way to Arrow, and the sum of evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.reading import with_dictionaries
from gazetteer.data.tables.schemas import EVIDENCE
from gazetteer.labeling.evidence.site_codes import array_of, compacted, rows_by_site, site_arrays

_ENCODED = with_dictionaries(EVIDENCE)
COUNTS = ("images", "images_asked", "hits", "iou_micro", "intersection", "area")
_SPREAD = 8  # distinct keys are counted when they are at most so many times as far apart as there are rows
_COLLAPSE_BYTES = 256 * 2**20  # evidence waiting to be added up before it is


@dataclass(frozen=True)
class EvidenceRows:
    """Rows of one site and split in canonical order: feature, then concept, null before any value.

    Attributes:
        feature: int64 [rows], -1 for null.
        concept: int64 [rows], index into `concepts`, -1 for null.
        counts: int64 [rows, 6], columns as COUNTS.
        cells: int64 [rows with exactly one null key, h * w], in row order; other rows have no cells. [rows, 0] where
            evidence was read without them.
    """

    site: Site
    split: str
    feature: NDArray[np.int64]
    concept: NDArray[np.int64]
    counts: NDArray[np.int64]
    cells: NDArray[np.int64]
    concepts: Sequence[str]

    def to_table(self) -> pa.Table:
        """The rows as schemas.EVIDENCE."""
        rows = len(self.feature)
        names = pa.array(self.concepts, pa.string())
        has_cells = (self.feature < 0) != (self.concept < 0)
        has_cells &= self.cells.shape[1] > 0
        offsets = np.concatenate(([0], np.cumsum(has_cells * self.cells.shape[1]))).astype(np.int32)
        cells = pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.cells.reshape(-1)), mask=pa.array(~has_cells))
        columns = [
            *site_arrays(self.site, rows).values(),
            pa.repeat(self.split, rows),
            pa.array(self.feature.astype(np.int32), mask=self.feature < 0),
            names.take(pa.array(self.concept, mask=self.concept < 0)),
            *(pa.array(self.counts[:, i]) for i in range(len(COUNTS))),
            cells,
        ]
        return pa.Table.from_arrays(columns, schema=EVIDENCE)


def codes_of_strings(column: pa.ChunkedArray, ordered: Sequence[str]) -> NDArray[np.int64]:
    """Index of every string in `ordered`, -1 for null; the column may be dictionary-encoded."""
    encoded = array_of(column).dictionary_encode()
    place = pc.index_in(encoded.dictionary.cast(pa.string()), value_set=pa.array(ordered, pa.string()))
    numbers = np.append(np.asarray(pc.fill_null(place, -1).to_numpy(zero_copy_only=False), np.int64), -1)
    return numbers[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def _list_rows(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """A list column as its values end to end, and where each row begins and how long it is (-1: null)."""
    array = array_of(column)
    lengths = pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    full = np.maximum(lengths, 0)
    return array.flatten().to_numpy(zero_copy_only=False), np.cumsum(full) - full, lengths


def rows_of(table: pa.Table) -> list[EvidenceRows]:
    """An evidence table cut by site and split, equal keys added up, everything in canonical order."""
    import scipy.sparse as sp

    splits = sorted(table["split"].unique().to_pylist())
    concepts = sorted(x for x in table["concept"].unique().to_pylist() if x is not None)
    split, concept = codes_of_strings(table["split"], splits), codes_of_strings(table["concept"], concepts)
    feature = array_of(table["feature"]).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.stack([array_of(table[name]).to_numpy(zero_copy_only=False) for name in COUNTS], axis=1)
    flat, begins, lengths = _list_rows(table["cells"])
    tables = []
    for site, numbers in rows_by_site(table).items():
        for number, name in enumerate(splits):
            own = numbers[split[numbers] == number]
            if not len(own):
                continue
            key = (feature[own] + 1) * (len(concepts) + 1) + concept[own] + 1
            keys, which = distinct(key)
            sums = np.stack([added(which, counts[own, i], len(keys)) for i in range(len(COUNTS))], axis=1)
            maps = np.flatnonzero((feature[own] < 0) != (concept[own] < 0))
            width = np.unique(lengths[own[maps]])
            if len(width) > 1:
                raise InputError(f"Evidence of {site.slug} has maps of several sizes: {width.tolist()} cells.")
            cells_each = max(int(width.max(initial=0)), 0)  # null: read without them
            cells = flat[begins[own[maps]][:, None] + np.arange(cells_each)].astype(np.int64)
            with_maps, row = np.unique(which[maps], return_inverse=True)
            add = sp.csr_array((np.ones(len(row), np.int64), (row, np.arange(len(row)))), (len(with_maps), len(row)))
            above, below = np.divmod(keys, len(concepts) + 1)
            tables.append(EvidenceRows(site, name, above - 1, below - 1, sums, add @ cells, concepts))
    return tables


def distinct(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct keys, ascending, and where each of `keys` stands in them: by counting, where they are dense."""
    if int(keys.max(initial=0)) > _SPREAD * len(keys) + 2**20:
        distinct, which = np.unique(keys, return_inverse=True)
        return distinct, which
    return compacted(keys)


def added(which: NDArray[np.int64], counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Sums of integers by place; in float64, which is exact below 2**53, where they are."""
    if float(np.abs(counts).max(initial=0)) * len(counts) < 2**53:
        return np.bincount(which, counts, size).astype(np.int64)
    sums = np.zeros(size, np.int64)
    np.add.at(sums, which, counts)
    return sums


def table_of(rows: Iterable[EvidenceRows]) -> pa.Table:
    """Evidence rows, site by site and split by split, as one table (schemas.EVIDENCE)."""
    parts = [part.to_table() for part in rows]
    return pa.concat_tables(parts).combine_chunks() if parts else EVIDENCE.empty_table()


def sum_evidence(tables: Iterable[pa.Table]) -> pa.Table:
    """Add up evidence: rows with equal keys become one, in canonical order.

    The result depends neither on the order of the tables nor on how images were cut into them. Tables are
    read one at a time and added up when as much waits as the sum so far takes (at least 256 MB): every row is
    put in order a few times, however many tables there are, and memory holds two to three times the sum.

    Raises:
        InputError: a site has maps on different grids.
    """
    waiting: list[pa.Table] = []
    size = limit = 0
    for table in tables:
        waiting.append(table.select(EVIDENCE.names).cast(_ENCODED))
        size += table.nbytes
        if size > max(limit, _COLLAPSE_BYTES) and len(waiting) > 1:
            waiting, size = [table_of(rows_of(pa.concat_tables(waiting))).cast(_ENCODED)], 0
            limit = waiting[0].nbytes
    return table_of(rows_of(pa.concat_tables(waiting))) if waiting else EVIDENCE.empty_table()
