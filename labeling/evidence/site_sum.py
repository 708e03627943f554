"""The evidence of one site without its maps, added up table by table in little more room than the sum takes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.rows import COUNTS, EvidenceRows, added, codes_of_strings, distinct, table_of
from gazetteer.labeling.evidence.site_codes import array_of

Ints = NDArray[np.int64]

UNMAPPED = ("split", "feature", "concept", *COUNTS)
"""The columns of the evidence of one site, its maps apart."""

_FEATURE, _SPLIT = 24, 56  # bits of a key below the feature and below the split
_WAITING = 2**20  # rows that wait before they are added up


class SiteSum:
    """Sums of rows of `UNMAPPED`, which are of one site, in whatever order they come.

    A key is split * 2**56 + (feature + 1) * 2**24 + concept + 1, splits and concepts by number as they came.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self._splits: dict[str, int] = {}
        self._concepts: dict[str, int] = {}
        self._waiting: list[tuple[Ints, Ints]] = []
        self._rows = self._summed = 0

    def add(self, table: pa.Table) -> None:
        """Count these rows; strings may be dictionary-encoded."""
        split, concept = (_numbers(table[name], known) for name, known in
                          (("split", self._splits), ("concept", self._concepts)))  # fmt: skip
        feature = array_of(table["feature"]).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        counts = np.stack([array_of(table[name]).to_numpy(zero_copy_only=False) for name in COUNTS])
        self._waiting.append(((split << _SPLIT) + (feature + 1 << _FEATURE) + concept + 1, counts))
        self._rows += table.num_rows
        if self._rows > max(_WAITING, 2 * self._summed):
            self._collapse()

    def _collapse(self) -> None:
        """Rows of equal keys become one."""
        key = np.concatenate([key for key, _ in self._waiting])
        split, feature, concept = key >> _SPLIT, (key >> _FEATURE) & 2**32 - 1, key & 2**_FEATURE - 1
        # Close together, so that they can be counted instead of sorted.
        lowest = int(feature[feature > 0].min(initial=2**32 - 1))
        near = np.maximum(feature - lowest + 1, 0)
        features, concepts = int(near.max(initial=0)) + 1, len(self._concepts) + 1
        dense, which = distinct((split * features + near) * concepts + concept)
        counts = np.stack([
            added(which, np.concatenate([part[row] for _, part in self._waiting]), len(dense))
            for row in range(len(COUNTS))
        ])  # fmt: skip
        above, concept = np.divmod(dense, concepts)
        split, near = np.divmod(above, features)
        feature = np.where(near > 0, near + lowest - 1, 0)
        self._waiting = [((split << _SPLIT) + (feature << _FEATURE) + concept, counts)]
        self._rows = self._summed = len(dense)

    def table(self) -> pa.Table:
        """The sum as schemas.EVIDENCE in canonical order, without maps."""
        if not self._rows:
            return table_of([])
        self._collapse()
        (key, counts), = self._waiting  # fmt: skip
        names = sorted(self._concepts)
        place = np.full(len(names) + 1, -1)
        place[[1 + self._concepts[name] for name in names]] = np.arange(len(names))
        split, feature, concept = key >> _SPLIT, ((key >> _FEATURE) & 2**32 - 1) - 1, place[key & 2**_FEATURE - 1]
        parts = []
        for name in sorted(self._splits):
            own = np.flatnonzero(split == self._splits[name])
            own = own[np.lexsort((concept[own], feature[own]))]
            none = np.zeros((0, 0), np.int64)
            parts.append(EvidenceRows(self.site, name, feature[own], concept[own], counts[:, own].T, none, names))
        return table_of(parts)


def _numbers(column: pa.ChunkedArray, known: dict[str, int]) -> Ints:
    """The number of every string, -1 for null; strings that are not `known` yet are numbered."""
    words = [name for name in column.unique().to_pylist() if name is not None]
    number = np.array([known.setdefault(name, len(known)) for name in words] + [-1], np.int64)
    return number[codes_of_strings(column, words)]
