"""Data-set IoU above a threshold of the feature's own: the top-quantile rule of NetDissect (arXiv 1704.05796, eq. 1).

A feature often fires weakly around what it means, and its support is then wider than the concept. NetDissect
therefore binarises a unit at its top quantile, T with P(a > T) = 0.005. A sparse feature is zero nearly everywhere
and rare to a degree of its own, so the quantile is taken among its active cells: at share s,

    T_s = the ceil(s * n)-th largest of the n activations > 0 in discovery images, and T = 0 (the support) at s = 1,
    iou_s = sum of |{a >= T_s} and M| / sum of |{a >= T_s} or M|   in pixels over the images asked for the concept.

Of the shares tried the one with the highest iou_s in *discovery* images is kept for a pair, and the IoU of held-out
images is taken at its threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.data.tables.schemas import CANDIDATES, PAIRS
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.pooling import cell_areas
from gazetteer.labeling.evidence.site_codes import SiteCodes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_TOP = ("top_share", "top_threshold", "top_iou", "heldout_top_iou")
SCORED = pa.schema([*PAIRS, *(CANDIDATES.field(name) for name in _TOP)])
"""What the rules count of a pair before it is decided what it is (labeling/rules/kinds/decide.py)."""

_ENTRIES = 2**24  # counts by feature, share and concept held at a time


def with_top_quantile(pairs: pa.Table, codes: SiteCodes, maps: ConceptMaps, fractions: Sequence[float]) -> pa.Table:
    """The pairs of one site with the columns of the top-quantile rule.

    Args:
        pairs: the site's schemas.PAIRS, each of a feature and a concept that meet in a discovery image.
        codes: the site's codes.
        maps: the concepts' maps at the grid of `codes`.
        fractions: in (0, 1), tried beside the support; () leaves every pair at its support.
    Returns:
        SCORED, order kept; a held-out IoU is null where neither feature nor concept was seen.
    """
    number = {name: i for i, name in enumerate(maps.concepts)}
    concept = np.array([number[name] for name in pairs["concept"].to_pylist()], np.int64)
    fraction, threshold, discovery, heldout = best_top_quantile(
        codes, maps, pairs["feature"].to_numpy().astype(np.int64), concept, fractions
    )
    columns = {name: pairs[name] for name in PAIRS.names}
    columns |= {"top_share": pa.array(fraction), "top_threshold": pa.array(threshold.astype(np.float32))}
    for name, values in (("top_iou", discovery), ("heldout_top_iou", heldout)):
        columns[name] = pa.array(values, mask=np.isnan(values))
    return pa.Table.from_arrays([columns[name] for name in SCORED.names], schema=SCORED)


def best_top_quantile(
    codes: SiteCodes, maps: ConceptMaps, feature: Ints, concept: Ints, fractions: Sequence[float]
) -> tuple[Floats, Floats, Floats, Floats]:
    """The share of every pair with the highest discovery IoU; the widest of equals.

    Args:
        feature, concept: int64 [T], feature numbers and indices into `maps.concepts`.
    Returns:
        Share, threshold, discovery IoU and held-out IoU, float64 [T]; an IoU is NaN where it is 0 / 0.
    """
    levels = np.array([1.0, *sorted(fractions, reverse=True)])
    place_of = image_places(codes, maps)
    chosen = {split: (maps.splits == split)[place_of] for split in ("discovery", "heldout")}
    names, row = np.unique(feature, return_inverse=True)
    fraction, threshold, discovery, heldout = np.ones((4, len(feature)))
    step = max(1, _ENTRIES // (len(levels) * max(1, len(maps.concepts))))
    for start in range(0, len(names), step):
        features_here = names[start : start + step]
        own = np.flatnonzero((row >= start) & (row < start + step))
        place_in = np.full(1 + max(int(codes.feature.max(initial=0)), int(features_here[-1])), -1)
        place_in[features_here] = np.arange(len(features_here))
        slots = np.flatnonzero(place_in[codes.feature] >= 0)
        place, image, value = place_in[codes.feature[slots]], codes.image[slots], codes.value[slots]
        learnt = chosen["discovery"][image]
        limits = _thresholds(place[learnt], value[learnt], len(features_here), levels)
        strength = np.full(len(slots), -1, np.int16)  # the last share that keeps the slot; the support keeps all
        for level in range(len(levels)):
            strength += value >= limits[place, level]
        at = row[own] - start
        iou = {}
        for split, here in chosen.items():
            kept = here[image]
            key = place[kept] * len(levels) + strength[kept]
            cell = codes.cell[slots[kept]]
            ious_here = _ious(codes, maps, split, key, place_of[image[kept]], cell, len(features_here), len(levels))
            iou[split] = ious_here[at, :, concept[own]]
        best = np.argmax(np.nan_to_num(iou["discovery"]), axis=1)
        pair = np.arange(len(own))
        fraction[own], threshold[own] = levels[best], limits[at, best]
        discovery[own], heldout[own] = iou["discovery"][pair, best], iou["heldout"][pair, best]
    return fraction, threshold, discovery, heldout


def _thresholds(feature: Ints, value: NDArray[np.float32], features: int, levels: Floats) -> Floats:
    """Least activation kept at every share: [features, levels], ascending, 0 at the first."""
    # Activations are above 0, and such float32 are in the order of their bits.
    ordered = np.sort((feature << 32) | np.ascontiguousarray(value, np.float32).view(np.int32))
    counts = np.bincount(feature, minlength=features)
    ends = np.cumsum(counts)
    last = np.ceil(levels * counts[:, None]).astype(np.int64)
    limits = np.full((features, len(levels)), np.inf)
    seen = counts > 0
    limits[seen] = (ordered[(ends[:, None] - last)[seen]] & (2**32 - 1)).astype(np.int32).view(np.float32)
    limits[:, 0] = 0.0
    return limits


def _ious(
    codes: SiteCodes, maps: ConceptMaps, split: str, key: Ints, image: Ints, cell: NDArray[np.int32],
    features: int, levels: int,
) -> Floats:  # fmt: skip
    """IoU of every feature, share and concept in one split: float64 [features, levels, concepts], 0 / 0 is NaN.

    Args:
        key: int64 [E], of each slot: feature * levels + the last level that keeps it.
        image, cell: its image in `maps`, its cell.
    """
    images, concepts, cells = len(maps.image_ids), len(maps.concepts), codes.cells
    grid = (codes.height, codes.width)
    here = np.zeros(images, np.bool_)
    here[image_places(codes, maps)] = True
    here &= maps.splits == split
    of = np.flatnonzero(here[maps.union_image])
    pixels = maps.pixels[grid][of].astype(np.int64)
    union, where = np.nonzero(pixels)
    masks = sp.csr_array(
        (pixels[union, where], (maps.union_image[of][union] * cells + where, maps.union_concept[of][union])),
        (images * cells, concepts),
    )
    shape = (features * levels, images * cells)
    supports = sp.csr_array((np.ones(len(key), np.int64), (key, image * cells + cell)), shape)
    sizes, which = np.unique(maps.sizes, axis=0, return_inverse=True)
    area_of = np.stack([cell_areas((int(h), int(w)), grid) for h, w in sizes])
    per_image = sp.csr_array((area_of[which.ravel()[image], cell], (key, image)), (features * levels, images))
    # Concepts asked of the same images share their denominators, and a run's base concepts all are.
    patterns, pattern = np.unique(maps.asked & here[:, None], axis=1, return_inverse=True)
    areas = (per_image @ sp.csr_array(patterns.astype(np.int64))).toarray()[:, pattern.ravel()]
    inter = _wider((supports @ masks).toarray(), features, levels)
    area = _wider(areas, features, levels)
    mask = np.asarray(masks.sum(axis=0)).ravel()
    both = area + mask - inter
    return np.divide(inter, both, out=np.full(inter.shape, np.nan), where=both > 0)


def _wider(counts: NDArray[np.int64], features: int, levels: int) -> Floats:
    """Counts by the last level that keeps a slot become counts of all slots kept at a level."""
    shaped = counts.reshape(features, levels, -1)
    return np.cumsum(shaped[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
