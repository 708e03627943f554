"""What will be where: score maps of every concept from one site's codes and the run's tables.

Two methods side by side, both vectorised over pictures:

`evidence_maps`, ours, needs no word embedding. Every feature f that fires in a cell moves the log odds of a concept c
by what the tables know of the pair,

    w(f, c) = logit(precision) - logit(precision / lift),

that is by how much more of f's support lies on c than pictures shuffled among each other would put there: where f
fires by habit is taken out, so that the layout prior is not counted again. Both precisions are drawn towards the
shuffled one by `PSEUDO_CELLS` cells, so that rare features say little. `labeling/layout/fit.py` turns the sums into
probabilities.

`paper_maps` follows arXiv 2504.15473, section 3.4: a feature's dictionary is the set of concepts it hit at least once,
its vector their mean word vector; a cell's vector is the mean over its strongest features, and the score of a noun
the cosine with that. The paper leaves open how many features it takes; here it is `top`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import logit

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.evidence.view import SplitEvidence, views

Floats = NDArray[np.float32]

PSEUDO_CELLS = 32.0
"""How many cells at the shuffled precision are added to a feature's counts."""

_CHUNK = 64  # pictures whose (picture, feature) pairs are held at a time
_SHARE = (1e-4, 1.0 - 1e-4)


@dataclass(frozen=True)
class SiteTable:
    """What the tables know of a site from the discovery pictures: F features that fire, C concepts.

    Attributes:
        site, grid: where; grid is (height, width).
        concepts: sorted; [C] axes count in this order.
        features: int64 [F], ascending.
        intersection: float64 [F, C], pixels of support and concept together.
        area: float64 [F, C], pixels of the support over pictures that were asked for the concept.
        expected: float64 [F, C], the precision that shuffled pictures would give (precision / lift).
        words: bool [F, C], the published rule: at least one hit.
        prior_pixels: float64 [C, cells], pixels of the concept in the cell, summed over pictures.
        prior_area: float64 [C, cells], pixels of the cell over the pictures asked for the concept.
        cell_pixels: float64 [cells], pixels of a cell.
    """

    site: Site
    grid: Grid
    concepts: tuple[str, ...]
    features: NDArray[np.int64]
    intersection: NDArray[np.float64]
    area: NDArray[np.float64]
    expected: NDArray[np.float64]
    words: NDArray[np.bool_]
    prior_pixels: NDArray[np.float64]
    prior_area: NDArray[np.float64]
    cell_pixels: NDArray[np.float64]

    def prior(self, own: NDArray[np.generic] | None = None) -> Floats:
        """The mean mask of every concept, share of the cell: float32 [1 or N, cells, C].

        own: pixels [N, C, cells] of pictures to leave out, each from its own prior.
        """
        pixels, area = self.prior_pixels[None], self.prior_area[None]
        if own is not None:
            pixels = np.maximum(pixels - own.astype(np.float64), 0.0)
            area = np.maximum(area - self.cell_pixels, 1.0)
        share = pixels / np.maximum(area, 1.0)
        return share.transpose(0, 2, 1).astype(np.float32)

    def weights(
        self, rows: NDArray[np.int64], intersection: NDArray[np.float64], area: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """w(f, c) for the features `rows` [P] with the counts given [P, C]: float64 [P, C]."""
        pseudo = PSEUDO_CELLS * self.cell_pixels.mean()
        expected = np.clip(self.expected[rows], *_SHARE)
        precision = np.clip((intersection + pseudo * expected) / (area + pseudo), *_SHARE)
        weights: NDArray[np.float64] = logit(precision) - logit(expected)
        return weights


def prior_logit(prior: Floats) -> Floats:
    """Log odds of a prior map, kept finite."""
    odds: Floats = logit(np.clip(prior.astype(np.float64), 1e-3, 1.0 - 1e-3)).astype(np.float32)
    return odds


def site_tables(evidence: pa.Table, grids: Mapping[Site, Grid], pixels: float) -> dict[Site, SiteTable]:
    """The discovery evidence of every site, as the score maps need it.

    Args:
        evidence: schemas.EVIDENCE of a run, summed over its shards.
        grids: (height, width) of every site's grid.
        pixels: of a picture (their mean, when sizes differ).
    Raises:
        InputError: a site without discovery pictures, or a grid that does not fit its evidence.
    """
    found = {}
    for site, splits in views(evidence).items():
        if "discovery" not in splits:
            raise InputError(f"The run has no discovery pictures at {site.slug}; a layout cannot be learned from it.")
        found[site] = _site_table(site, splits["discovery"], grids[site], pixels)
    return found


def _site_table(site: Site, some: SplitEvidence, grid: Grid, pixels: float) -> SiteTable:
    cells = grid[0] * grid[1]
    if some.concept_cells.shape[1] != cells:
        raise InputError(f"The evidence at {site.slug} has {some.concept_cells.shape[1]} cells, its codes {cells}.")
    shape = (len(some.features), len(some.concepts))
    per_cell = np.full(cells, pixels / cells)
    intersection, words = np.zeros(shape), np.zeros(shape, np.bool_)
    area = np.repeat(some.feature_area[:, None].astype(np.float64), shape[1], axis=1)
    intersection[some.row, some.concept] = some.intersection
    words[some.row, some.concept] = some.hits > 0
    area[some.row, some.concept] = some.area
    fired = some.feature_cells.astype(np.float64)
    asked = np.maximum(some.concept_asked, 1)
    shared = fired @ some.concept_cells.T / asked  # E over all of the feature's pictures
    expected = shared / np.maximum(fired @ per_cell, 1.0)[:, None]
    prior_area = np.outer(some.concept_asked, per_cell)
    return SiteTable(
        site, grid, tuple(some.concepts), some.features, intersection, area, expected, words,
        some.concept_cells.astype(np.float64), prior_area, per_cell,
    )  # fmt: skip


@dataclass(frozen=True)
class OwnCounts:
    """What single discovery pictures added to a table, to be taken out again when they are scored themselves.

    Attributes:
        keys: int64 [P], picture * F + feature row, ascending; pictures count as in the codes they came from.
        intersection: float64 [P, C]; area: float64 [P].
    """

    keys: NDArray[np.int64]
    intersection: NDArray[np.float64]
    area: NDArray[np.float64]


def own_counts(table: SiteTable, codes: SiteCodes, pixels: NDArray[np.generic]) -> OwnCounts:
    """Each picture's part of the table, from its codes and its concepts' pixels [N, C, cells]."""
    row, known = _rows(table, codes)
    image, cell, row = codes.image[known].astype(np.int64), codes.cell[known], row[known]
    key = image * len(table.features) + row
    if not len(key):
        return OwnCounts(key, np.zeros((0, len(table.concepts))), np.zeros(0))
    starts = np.concatenate(([0], np.flatnonzero(np.diff(key)) + 1))
    parts = []
    for some in np.array_split(np.arange(len(starts)), max(1, len(codes.image_ids) // _CHUNK)):
        if len(some):
            end = starts[some[-1] + 1] if some[-1] + 1 < len(starts) else len(key)
            window = slice(starts[some[0]], end)
            touched = pixels[image[window], :, cell[window]].astype(np.float64)
            parts.append(np.add.reduceat(touched, starts[some] - starts[some[0]], axis=0))
    return OwnCounts(key[starts], np.concatenate(parts), np.add.reduceat(table.cell_pixels[cell], starts))


def evidence_maps(table: SiteTable, codes: SiteCodes, own: OwnCounts | None = None) -> Floats:
    """Summed weights of the features that fire in each cell: float32 [N, cells, C].

    Args:
        table: of a site with the same autoencoder as the codes.
        codes: of N pictures; they may be of another sampler step than the table's.
        own: what these very pictures added to the table, in the same order; None when they took no part in it.
    """
    row, known = _rows(table, codes)
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
    there = np.flatnonzero(own.keys[at] == pairs) if len(own.keys) else np.zeros(0, np.int64)
    intersection[there] = np.maximum(intersection[there] - own.intersection[at[there]], 0.0)
    area[there] = np.maximum(area[there] - own.area[at[there], None], 0.0)
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
    row, known = _rows(table, codes)
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


def _cosine(some: NDArray[np.floating], words: NDArray[np.floating]) -> Floats:
    """Cosines [A, C] of vectors [A, d] and [C, d]; 0 with a zero vector."""
    lengths = np.outer(np.linalg.norm(some, axis=1), np.linalg.norm(words, axis=1))
    return np.divide(some @ words.T, lengths, out=np.zeros(lengths.shape), where=lengths > 0).astype(np.float32)


def _rows(table: SiteTable, codes: SiteCodes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of every slot's feature in the table, and whether it is there."""
    if not len(table.features):
        return np.zeros(len(codes.feature), np.int64), np.zeros(len(codes.feature), np.bool_)
    at = np.minimum(np.searchsorted(table.features, codes.feature), len(table.features) - 1)
    return at, table.features[at] == codes.feature
