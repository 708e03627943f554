"""What single discovery pictures added to a table, so that what is fitted on them does not meet its own witness."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import logit

from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.label_weights import SHARE, LabelWeights
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.site_table import SiteTable

CHUNK = 64
"""Pictures whose (picture, feature) pairs are held at a time."""


@dataclass(frozen=True)
class OwnCounts:
    """What single discovery pictures added to a table, to be taken out again when they are scored themselves.

    Attributes:
        keys: int64 [P], picture * F + feature row, ascending; pictures count as in the codes they came from.
        intersection: float64 [P, C]; area: float64 [P], of the support, which counts for concepts that were asked.
        asked: bool [N, C], of the pictures.
    """

    keys: NDArray[np.int64]
    intersection: NDArray[np.float64]
    area: NDArray[np.float64]
    asked: NDArray[np.bool_]


def own_counts(table: SiteTable, codes: SiteCodes, truth: Truth) -> OwnCounts:
    """Each picture's part of the table, from its codes and its masks on their grid."""
    row, known = table.rows(codes)
    image, cell, row = codes.image[known].astype(np.int64), codes.cell[known], row[known]
    key = image * len(table.features) + row
    if not len(key):
        return OwnCounts(key, np.zeros((0, len(table.concepts))), np.zeros(0), truth.asked)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(key)) + 1))
    parts = []
    for batch in np.array_split(np.arange(len(starts)), max(1, len(codes.image_ids) // CHUNK)):
        if len(batch):
            end = starts[batch[-1] + 1] if batch[-1] + 1 < len(starts) else len(key)
            window = slice(starts[batch[0]], end)
            touched = truth.pixels[image[window], :, cell[window]].astype(np.float64)
            parts.append(np.add.reduceat(touched, starts[batch] - starts[batch[0]], axis=0))
    area = np.add.reduceat(table.cell_pixels[cell], starts)
    return OwnCounts(key[starts], np.concatenate(parts), area, truth.asked)


def with_counts(table: SiteTable, own: OwnCounts) -> SiteTable:
    """The table with what pictures add to its counts; what shuffled pictures would give stays as it is."""
    image, row = own.keys // len(table.features), own.keys % len(table.features)
    intersection, area = table.intersection.copy(), table.area.copy()
    np.add.at(intersection, row, own.intersection)
    np.add.at(area, row, own.area[:, None] * own.asked[image])
    return replace(table, intersection=intersection, area=area)


def counts_without(
    table: SiteTable, own: OwnCounts, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows [P] of the table, intersection and area [P, C] of (picture, feature) pairs without the pictures' own.

    Args:
        pairs: int64 [P], keys as those of `own`.
    """
    rows = pairs % len(table.features)
    intersection, area = table.intersection[rows], table.area[rows]
    present, at = _present(own, pairs)
    intersection[present] = np.maximum(intersection[present] - own.intersection[at], 0.0)
    asked = own.asked[pairs[present] // len(table.features)]
    area[present] = np.maximum(area[present] - own.area[at, None] * asked, 0.0)
    return rows, intersection, area


def words_without(table: SiteTable, own: OwnCounts, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The dictionaries [P, C] of (picture, feature) pairs without what only the picture itself can have hit.

    A concept that was hit twice stays; one that was hit once goes where the picture has feature and concept together,
    which may be once too often: which picture's hit it was, tables do not say.
    """
    hits = table.hits[pairs % len(table.features)]
    present, at = _present(own, pairs)
    words: NDArray[np.bool_] = hits > 0
    words[present] &= (hits[present] > 1) | (own.intersection[at] == 0)
    return words


def _present(own: OwnCounts, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the pairs the pictures added to, and where their counts are."""
    if not len(own.keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(own.keys, pairs), len(own.keys) - 1)
    present = np.flatnonzero(own.keys[at] == pairs)
    return present, at[present]


def label_shift(weights: LabelWeights, table: SiteTable, codes: SiteCodes, own: OwnCounts) -> NDArray[np.float64]:
    """What the labels of a site say less of each picture for not having seen it: float64 [N, cells, C].

    To be added to the summed weights of `codes`: every label's precision without the picture's own pixels. Which labels
    there are, and what is common at a place, stays as it is.

    Args:
        weights: of labels from the run whose counts `table` has, its concepts in the same order.
        codes: of the pictures whose counts `own` has; they may be of another sampler step.
    """
    row, known = table.rows(codes)
    known &= np.isin(codes.feature, weights.features)
    out = np.zeros((len(codes.image_ids), codes.cells, len(table.concepts)))
    for start in range(0, len(codes.image_ids), CHUNK):
        stop = min(start + CHUNK, len(codes.image_ids))
        here = np.flatnonzero(known & (codes.image >= start) & (codes.image < stop))
        pairs, column = np.unique(
            codes.image[here].astype(np.int64) * len(table.features) + row[here], return_inverse=True
        )
        rows, inside, area = counts_without(table, own, pairs)
        labelled = weights.weights[np.searchsorted(weights.features, table.features[rows])] != 0
        shift = np.where(labelled, _odds(inside, area) - _odds(table.intersection[rows], table.area[rows]), 0.0)
        place = (codes.image[here].astype(np.int64) - start) * codes.cells + codes.cell[here]
        matrix = sp.csr_array((np.ones(len(here)), (place, column)), ((stop - start) * codes.cells, len(pairs)))
        out[start:stop] = (matrix @ shift).reshape(stop - start, codes.cells, -1)
    return out


def _odds(intersection: NDArray[np.float64], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds of precisions, kept finite as those of labels are."""
    odds: NDArray[np.float64] = logit(np.clip(intersection / np.maximum(area, 1.0), *SHARE))
    return odds
