"""What will be where: score maps of every concept from one site's codes and the run's tables.

Two methods side by side, both vectorised over pictures:

`evidence_maps`, ours, needs no word embedding. Every feature f that fires in a cell moves the log odds of a concept c
by what the tables know of the pair,

    w(f, c) = logit(precision) - logit(precision / lift),

that is by how much more of f's support lies on c than pictures shuffled among each other would put there: where f
fires by habit is taken out, so that the layout prior is not counted again. Both precisions are drawn towards the
shuffled one by `PSEUDO_CELLS` cells, so that rare features say little. `labeling/layout/calibration.py` turns the
sums into probabilities.

`paper_maps` follows arXiv 2504.15473, section 3.4: a feature's dictionary is the set of concepts it hit at least once,
its vector their mean word vector; a cell's vector is the mean over its strongest features, and the score of a noun
the cosine with that. The paper leaves open how many features it takes; here it is `top`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.site_table import SiteTable

Floats = NDArray[np.float32]

_CHUNK = 64  # pictures whose (picture, feature) pairs are held at a time


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
    for batch in np.array_split(np.arange(len(starts)), max(1, len(codes.image_ids) // _CHUNK)):
        if len(batch):
            end = starts[batch[-1] + 1] if batch[-1] + 1 < len(starts) else len(key)
            window = slice(starts[batch[0]], end)
            touched = truth.pixels[image[window], :, cell[window]].astype(np.float64)
            parts.append(np.add.reduceat(touched, starts[batch] - starts[batch[0]], axis=0))
    area = np.add.reduceat(table.cell_pixels[cell], starts)
    return OwnCounts(key[starts], np.concatenate(parts), area, truth.asked)


def evidence_maps(table: SiteTable, codes: SiteCodes, own: OwnCounts | None = None) -> Floats:
    """Summed weights of the features that fire in each cell: float32 [N, cells, C].

    Args:
        table: of a site with the same autoencoder as the codes.
        codes: of N pictures; they may be of another sampler step than the table's.
        own: what these very pictures added to the table, in the same order; None when they took no part in it.
    """
    row, known = table.rows(codes)
    out = np.zeros((len(codes.image_ids), codes.cells, len(table.concepts)), np.float32)
    shared = None if own is not None else table.weights(
        np.arange(len(table.features)), table.intersection, table.area
    )  # fmt: skip
    for start in range(0, len(codes.image_ids), _CHUNK):
        stop = min(start + _CHUNK, len(codes.image_ids))
        here = np.flatnonzero(known & (codes.image >= start) & (codes.image < stop))
        place = (codes.image[here].astype(np.int64) - start) * codes.cells + codes.cell[here]
        if shared is not None:
            column, weights = row[here], shared
        else:
            assert own is not None
            key = codes.image[here].astype(np.int64) * len(table.features) + row[here]
            pairs, column = np.unique(key, return_inverse=True)
            weights = _weights_without(table, own, pairs)
        ones = np.ones(len(here))
        matrix = sp.csr_array((ones, (place, column)), ((stop - start) * codes.cells, len(weights)))
        out[start:stop] = (matrix @ weights).reshape(stop - start, codes.cells, -1)
    return out


def _weights_without(table: SiteTable, own: OwnCounts, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """w of (picture, feature) pairs with the picture's own counts taken out: float64 [P, C]."""
    rows = pairs % len(table.features)
    intersection, area = table.intersection[rows], table.area[rows]
    at = np.minimum(np.searchsorted(own.keys, pairs), max(len(own.keys) - 1, 0))
    present = np.flatnonzero(own.keys[at] == pairs) if len(own.keys) else np.zeros(0, np.int64)
    intersection[present] = np.maximum(intersection[present] - own.intersection[at[present]], 0.0)
    asked = own.asked[pairs[present] // len(table.features)]
    area[present] = np.maximum(area[present] - own.area[at[present], None] * asked, 0.0)
    return table.weights(rows, intersection, area)


def paper_maps(table: SiteTable, codes: SiteCodes, vectors: NDArray[np.floating], top: int = 5) -> Floats:
    """Cosine of each cell's mean word vector with every concept's own: float32 [N, cells, C], 0 where nothing fires.

    Args:
        table, codes: as for `evidence_maps`.
        vectors: float [C, d], the word vector of every concept; zeros for a word the embedding lacks.
        top: features taken of a cell, the strongest among those with a dictionary.
    Raises:
        InputError: `vectors` has another number of rows than the table has concepts.
    """
    if len(vectors) != len(table.concepts):
        raise InputError(f"{len(table.concepts)} concepts need as many word vectors, not {len(vectors)}.")
    known_word = np.linalg.norm(vectors, axis=1) > 0
    dictionary = (table.words & known_word).astype(np.float64)
    size = dictionary.sum(axis=1)
    embedding = dictionary @ vectors / np.maximum(size, 1.0)[:, None]
    row, known = table.rows(codes)
    here = np.flatnonzero(known)
    here = here[size[row[here]] > 0]
    place = codes.image[here].astype(np.int64) * codes.cells + codes.cell[here]
    order = np.lexsort((row[here], -codes.value[here], place))
    here, place = here[order], place[order]
    first = np.concatenate(([0], np.flatnonzero(np.diff(place)) + 1)) if len(place) else np.zeros(0, np.int64)
    rank = np.arange(len(place)) - np.repeat(first, np.diff(np.append(first, len(place))))
    here, place = here[rank < top], place[rank < top]
    cells = len(codes.image_ids) * codes.cells
    matrix = sp.csr_array((np.ones(len(here)), (place, row[here])), (cells, len(table.features)))
    return _cosine(matrix @ embedding, vectors).reshape(len(codes.image_ids), codes.cells, -1)


def _cosine(features: NDArray[np.floating], words: NDArray[np.floating]) -> Floats:
    """Cosines [A, C] of vectors [A, d] and [C, d]; 0 with a zero vector."""
    lengths = np.outer(np.linalg.norm(features, axis=1), np.linalg.norm(words, axis=1))
    return np.divide(features @ words.T, lengths, out=np.zeros(lengths.shape), where=lengths > 0).astype(np.float32)
