"""What the evidence of a run says of pictures, features and concepts, added up table by table in little room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import TEXT, Site
from gazetteer.labeling.evidence.rows import codes_of_strings
from gazetteer.labeling.evidence.site_codes import SITE_COLUMNS, array_of, rows_by_site

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
COLUMNS = (*SITE_COLUMNS, "feature", "concept", "images")
"""What is read of the evidence; the maps, which take most of its room, are not."""


class Seen:
    """Counts of every site.

    Only this much is kept of any number of tables: per site, pictures with each feature, with each concept, and,
    sparsely, with both.
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self.names: dict[str, int] = {}
        self.sites: dict[Site, SiteSeen] = {}
        for table in tables:
            for site, rows in rows_by_site(table).items():
                self.sites.setdefault(site, SiteSeen()).add(table, rows, self.names)

    def presence(self) -> dict[str, int]:
        """Pictures that show each concept: every site saw the same pictures, unless one has fewer.

        That a prompt has a word does not say that its picture shows it: a text stream counts where there is no other.
        """
        most = np.zeros(len(self.names), np.int64)
        pictured = [seen for site, seen in self.sites.items() if site.stream != TEXT]
        for seen in pictured or self.sites.values():
            most = np.maximum(most, _widened(seen.present, len(self.names)))
        return dict(zip(self.names, most.tolist(), strict=True))


@dataclass
class SiteSeen:
    """One site's counts; a pair's key is feature * 2**32 + concept, keys ascending."""

    images: int = 0
    fired: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    present: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    pairs: list[tuple[Ints, Ints]] = field(default_factory=list)

    def add(self, table: pa.Table, rows: Ints, names: dict[str, int]) -> None:
        """Count the rows of an evidence table that are of this site; new concepts are numbered in `names`."""
        own = table.select(["feature", "concept", "images"]).take(pa.array(rows))
        words = [name for name in own["concept"].unique().to_pylist() if name is not None]
        number = np.array([names.setdefault(name, len(names)) for name in words] + [-1], np.int64)
        concept = number[codes_of_strings(own["concept"], words)]
        feature = array_of(own["feature"]).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        images = array_of(own["images"]).to_numpy(zero_copy_only=False)
        self.images += int(images[(feature < 0) & (concept < 0)].sum())
        self.fired = _added(self.fired, feature, images, (feature >= 0) & (concept < 0))
        self.present = _added(self.present, concept, images, (feature < 0) & (concept >= 0))
        both = (feature >= 0) & (concept >= 0) & (images > 0)
        self.pairs.append(_merged([(feature[both] * 2**32 + concept[both], images[both])]))
        # As in a binary counter: equals are merged with equals, so that a pair is looked at a few times only.
        while len(self.pairs) > 1 and len(self.pairs[-1][0]) * 2 > len(self.pairs[-2][0]):
            self.pairs[-2:] = [_merged(self.pairs[-2:])]

    def needs(self, index: Ints, rows: int, wanted: int) -> tuple[Floats, Floats, Floats]:
        """(deficit, floor, rates [rows, D]) of the features that fired in fewer than `wanted` pictures.

        Args:
            index: the row of every concept, in the order in which they were numbered.
        """
        short = np.flatnonzero((self.fired > 0) & (self.fired < wanted))
        key, count = _merged(self.pairs) if self.pairs else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        feature, concept = key >> 32, key & (2**32 - 1)
        own = np.isin(feature, short)
        rates = np.zeros((rows, len(short)), np.float32)
        seen = _widened(self.present, len(index))[concept[own]]
        rates[index[concept[own]], np.searchsorted(short, feature[own])] = count[own] / (seen + 1)
        return (wanted - self.fired[short]).astype(np.float64), self.fired[short] / max(self.images, 1), rates


def _added(sums: Ints, place: Ints, counts: Ints, counted: NDArray[np.bool_]) -> Ints:
    sums = _widened(sums, 1 + int(place[counted].max(initial=-1)))
    np.add.at(sums, place[counted], counts[counted])
    return sums


def _widened(counts: Ints, size: int) -> Ints:
    return np.concatenate((counts, np.zeros(max(0, size - len(counts)), np.int64)))


def _merged(parts: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Keys ascending, each once, with the sums of their counts."""
    keys = np.concatenate([key for key, _ in parts])
    counts = np.concatenate([count for _, count in parts])
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    return keys[order][starts], np.add.reduceat(counts[order], starts) if len(starts) else counts
