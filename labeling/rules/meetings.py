"""How often and where features and concepts meet in the pictures of a split, counted from codes and maps.

The numbers are those of the summed evidence (labeling/evidence/view.py); what the nulls are asked of a few features
is had from the codes that they shuffle, so that evidence, which is larger, is read once. What fires in cells of given
pictures that nobody decided on counts here, as it does in the nulls, and not in evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.site_codes import SiteCodes, compacted

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Meetings:
    """F features that fire, C concepts and the T pairs of them that meet in a picture of the split.

    Attributes:
        images: of the split, at the site.
        concepts: their C names.
        features: int64 [F], ascending; `feature_images` [F]: pictures in which each fires.
        concept_images: int64 [C], pictures that show each concept.
        row, concept: int64 [T], by row, then concept.
        intersection: int64 [T], pixels of support and union together.
        expected: float64 [T], their mean when pictures are shuffled (`view.SplitEvidence.expected_intersection`).
        ignored: bool [F], features that fire somewhere where nobody decided.
    """

    images: int
    concepts: Sequence[str]
    features: Ints
    feature_images: Ints
    concept_images: Ints
    row: Ints
    concept: Ints
    intersection: Ints
    expected: Floats
    ignored: NDArray[np.bool_]


def meetings(codes: SiteCodes, maps: ConceptMaps, split: str = "discovery") -> Meetings:
    """Of one site, or of some of its features (`SiteCodes.among`)."""
    owner = image_places(codes, maps)
    here = np.zeros(len(maps.image_ids), np.bool_)
    here[owner] = True
    here &= maps.splits == split
    slots = np.flatnonzero(here[owner][codes.image])
    features, row = compacted(codes.feature[slots])
    image, cell, cells = owner[codes.image[slots]], codes.cell[slots], codes.cells
    runs = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
    shape = (len(features), len(here))
    fires = sp.csr_array((np.ones(len(runs), np.int64), (row[runs], image[runs])), shape)
    met = (fires @ sp.csr_array((maps.present & here[:, None]).astype(np.int64))).tocsr()
    met.sort_indices()
    met_pairs = np.repeat(np.arange(len(features)), np.diff(met.indptr)), met.indices.astype(np.int64)
    of = np.flatnonzero(here[maps.union_image])
    pixels = maps.pixels[codes.height, codes.width][of]
    union, where = np.nonzero(pixels)
    amount, concept = pixels[union, where].astype(np.int64), maps.union_concept[of][union]
    at, size = maps.union_image[of][union] * cells + where, len(here) * cells
    masks = sp.csr_array((amount, (at, concept)), (size, len(maps.concepts)))
    support = sp.csr_array((np.ones(len(slots), np.int64), (row, image * cells + cell)), (len(features), size))
    asked_of = (maps.asked & here[:, None]).astype(np.int64)
    # Concepts asked of the same pictures share what they are compared with, and a run's base concepts all are.
    patterns, pattern = np.unique(asked_of, axis=1, return_inverse=True)
    asked = np.asarray(fires @ patterns)[met_pairs[0], pattern.ravel()[met_pairs[1]]]
    fired = np.bincount(row[runs], minlength=len(features))
    places = np.bincount(row * cells + cell, minlength=len(features) * cells).reshape(-1, cells)
    cover = np.zeros((len(maps.concepts), cells))
    np.add.at(cover, (concept, where), amount)
    product = (places.astype(np.float64) @ cover.T)[met_pairs]
    expected = product * (asked / fired[met_pairs[0]]) / asked_of.sum(axis=0)[met_pairs[1]]
    return Meetings(
        int(here.sum()), maps.concepts, features, fired, (maps.present & here[:, None]).sum(axis=0), *met_pairs,
        _at(support @ masks, *met_pairs), expected, _undecided(codes, slots, row, len(features)),
    )  # fmt: skip


def _undecided(codes: SiteCodes, slots: Ints, row: Ints, features: int) -> NDArray[np.bool_]:
    """Which features have one of the slots where nobody decided."""
    undecided = np.zeros(features, np.bool_)
    if codes.ignored is not None:
        undecided[row[codes.ignored[slots]]] = True
    return undecided


def _at(matrix: sp.csr_array, row: Ints, column: Ints) -> Ints:
    """Entries of a matrix in ascending order of row and column, 0 where it has none."""
    matrix.sort_indices()
    width = max(matrix.shape[1], 1)
    keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * width + matrix.indices
    wanted = row * width + column
    values = np.zeros(len(wanted), np.int64)
    at = np.searchsorted(wanted, keys)
    values[at] = matrix.data
    return values
