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

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.own_counts import CHUNK, OwnCounts, counts_without, words_without
from gazetteer.labeling.layout.site_table import SiteTable

Floats = NDArray[np.float32]


def evidence_maps(table: SiteTable, codes: SiteCodes, own: OwnCounts | None = None) -> Floats:
    """Summed weights of the features that fire in each cell: float32 [N, cells, C].

    Args:
        table: of a site with the same autoencoder as the codes.
        codes: of N pictures; they may be of another sampler step than the table's.
        own: what these very pictures added to the table, in the same order; None when they took no part in it.
    """
    out = np.zeros((len(codes.image_ids), codes.cells, len(table.concepts)), np.float32)
    shared = None if own is not None else table.weights(
        np.arange(len(table.features)), table.intersection, table.area
    )  # fmt: skip
    for part in _parts(table, codes, own):
        weights = shared
        if weights is None:
            assert own is not None
            weights = table.weights(*counts_without(table, own, part.pairs))
        summed = part.matrix(codes.cells, len(weights)) @ weights
        out[part.start : part.stop] = summed.reshape(part.stop - part.start, codes.cells, -1)
    return out


@dataclass(frozen=True)
class _Part:
    """Some pictures, and what fires in them.

    Attributes:
        start, stop: the pictures.
        slots: int64 [S], those of the codes that hold a feature of the table.
        place: int64 [S], of each the cell, counted through the pictures.
        column: int64 [S], of each the number in `pairs`.
        pairs: int64 [P], keys of (picture, feature) as those of `OwnCounts`, or rows of the table for all pictures.
    """

    start: int
    stop: int
    slots: NDArray[np.int64]
    place: NDArray[np.int64]
    column: NDArray[np.int64]
    pairs: NDArray[np.int64]

    def matrix(self, cells: int, width: int, slots: NDArray[np.int64] | None = None) -> sp.csr_array:
        """Ones where a pair, or a row, fires in a cell: [pictures * cells, width]; of some of the slots only."""
        place, column = (self.place, self.column) if slots is None else (self.place[slots], self.column[slots])
        return sp.csr_array((np.ones(len(place)), (place, column)), ((self.stop - self.start) * cells, width))


def _parts(table: SiteTable, codes: SiteCodes, own: OwnCounts | None) -> Iterator[_Part]:
    """The pictures in parts, with `own` by pairs of picture and feature."""
    row, known = table.rows(codes)
    every = np.arange(len(table.features))
    for start in range(0, len(codes.image_ids), CHUNK):
        stop = min(start + CHUNK, len(codes.image_ids))
        slots = np.flatnonzero(known & (codes.image >= start) & (codes.image < stop))
        place = (codes.image[slots].astype(np.int64) - start) * codes.cells + codes.cell[slots]
        pairs, column = every, row[slots]
        if own is not None:
            key = codes.image[slots].astype(np.int64) * len(table.features) + row[slots]
            pairs, column = np.unique(key, return_inverse=True)
        yield _Part(start, stop, slots, place, column, pairs)


def paper_maps(
    table: SiteTable, codes: SiteCodes, vectors: NDArray[np.floating], top: int = 5, own: OwnCounts | None = None
) -> Floats:
    """Cosine of each cell's mean word vector with every concept's own: float32 [N, cells, C], 0 where nothing fires.

    Args:
        table, codes, own: as for `evidence_maps`.
        vectors: float [C, d], the word vector of every concept; zeros for a word the embedding lacks.
        top: features taken of a cell, the strongest among those with a dictionary.
    Raises:
        InputError: `vectors` has another number of rows than the table has concepts.
    """
    if len(vectors) != len(table.concepts):
        raise InputError(f"{len(table.concepts)} concepts need as many word vectors, not {len(vectors)}.")
    known_word = np.linalg.norm(vectors, axis=1) > 0
    out = np.zeros((len(codes.image_ids), codes.cells, len(table.concepts)), np.float32)
    for part in _parts(table, codes, own):
        words = table.hits > 0 if own is None else words_without(table, own, part.pairs)
        dictionary = (words & known_word).astype(np.float64)
        size = dictionary.sum(axis=1)
        embedding = dictionary @ vectors / np.maximum(size, 1.0)[:, None]
        strongest = _strongest(part, codes.value[part.slots], size[part.column] > 0, top)
        vector = part.matrix(codes.cells, len(embedding), strongest) @ embedding
        out[part.start : part.stop] = _cosine(vector, vectors).reshape(part.stop - part.start, codes.cells, -1)
    return out


def _strongest(part: _Part, value: NDArray[np.floating], speaks: NDArray[np.bool_], top: int) -> NDArray[np.int64]:
    """Of the slots that speak the `top` strongest of every cell; of equally strong ones the lower feature."""
    here = np.flatnonzero(speaks)
    order = here[np.lexsort((part.column[here], -value[here], part.place[here]))]
    place = part.place[order]
    first = np.concatenate(([0], np.flatnonzero(np.diff(place)) + 1)) if len(place) else np.zeros(0, np.int64)
    rank = np.arange(len(place)) - np.repeat(first, np.diff(np.append(first, len(place))))
    strongest: NDArray[np.int64] = order[rank < top]
    return strongest


def _cosine(features: NDArray[np.floating], words: NDArray[np.floating]) -> Floats:
    """Cosines [A, C] of vectors [A, d] and [C, d]; 0 with a zero vector."""
    lengths = np.outer(np.linalg.norm(features, axis=1), np.linalg.norm(words, axis=1))
    return np.divide(features @ words.T, lengths, out=np.zeros(lengths.shape), where=lengths > 0).astype(np.float32)
