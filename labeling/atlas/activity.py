"""How every feature of a site fires: how strongly, in which pictures besides its best, with whom, and who is alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.labeling.evidence.site_codes import SiteCodes

BINS = 24
"""Of a histogram, from 0 to the feature's largest activation."""
QUANTILES = (0.9, 0.7, 0.5, 0.25)
"""Of a feature's pictures by their peaks; of each the nearest picture is shown."""
PARTNERS = 6
SLOTS = 2_000_000
"""Active slots from which it is counted who fires with whom; the pictures are those first by id, which are random."""
LEAST = 4
"""Cells in which two features fire together before they are called partners."""

Example = tuple[float, str, float, int]
"""Quantile, image id, peak in this image, cell of the peak."""


@dataclass(frozen=True)
class Activity:
    """Of the features of one site, by number; a feature that never fires is in none of these.

    Attributes:
        histograms: int64 [BINS], active cells by activation.
        examples: by quantile, strongest first.
        partners: other features and the share of cells where both fire among those where either does (Jaccard).
        alike: other features and the cosine of their decoder vectors.
        sampled: share of the pictures that `partners` were counted on.
    """

    histograms: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    examples: dict[int, list[Example]] = field(default_factory=dict)
    partners: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    alike: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    sampled: float = 1.0


def activity_of(
    codes: SiteCodes, shown: Collection[str], top: Mapping[int, Collection[str]], decoder: NDArray[Any] | None = None
) -> Activity:
    """What the codes of a site say of its features.

    Args:
        shown: images that may be shown; examples are taken from these.
        top: by feature, the images that are shown of it already.
        decoder: float [features, d], the autoencoder's vectors; None leaves `alike` empty.
    """
    partners, sampled = _partners(codes)
    alike = {} if decoder is None else _alike(decoder, np.unique(codes.feature))
    return Activity(_histograms(codes), _examples(codes, shown, top), partners, alike, sampled)


def _histograms(codes: SiteCodes) -> dict[int, NDArray[np.int64]]:
    used, row = np.unique(codes.feature, return_inverse=True)
    peak = np.zeros(len(used), np.float32)
    np.maximum.at(peak, row, codes.value)
    place = np.minimum((codes.value / peak[row] * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(row * BINS + place, minlength=len(used) * BINS).reshape(-1, BINS)
    return dict(zip(used.tolist(), counts, strict=True))


def _examples(codes: SiteCodes, shown: Collection[str], top: Mapping[int, Collection[str]]) -> dict[int, list[Example]]:
    starts = codes.pair_starts()
    if not len(starts):
        return {}
    peaks = np.maximum.reduceat(codes.value, starts)
    pair_of = np.repeat(np.arange(len(starts)), np.diff([*starts, len(codes.value)]))
    first = np.full(len(starts), len(codes.value), np.int64)
    at_peak = np.flatnonzero(codes.value == peaks[pair_of])
    np.minimum.at(first, pair_of[at_peak], at_peak)  # the first cell of the peak, row by row
    feature, image = codes.feature[starts], codes.image[starts]
    order = np.lexsort((image, peaks, feature))
    ends = np.flatnonzero(np.diff(feature[order], append=-1)) + 1
    may = np.array([image_id in shown for image_id in codes.image_ids], bool)
    partners_of = {}
    for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        own = order[begin:end]
        number = int(feature[own[0]])
        taken = set(top.get(number, ()))
        chosen = _by_quantile(own, may[image[own]], [codes.image_ids[i] in taken for i in image[own]])
        partners_of[number] = [
            (q, codes.image_ids[image[pair]], float(peaks[pair]), int(codes.cell[first[pair]])) for q, pair in chosen
        ]
    return partners_of


def _by_quantile(pairs: NDArray[np.int64], may: NDArray[np.bool_], taken: list[bool]) -> list[tuple[float, int]]:
    """Of pairs in order of their peaks the nearest to every quantile, each once, those `taken` not again."""
    free = may & ~np.array(taken, bool)
    rows_of = []
    for quantile in QUANTILES:
        open_places = np.flatnonzero(free)
        if not len(open_places):
            break
        place = open_places[np.argmin(np.abs(open_places - quantile * (len(pairs) - 1)))]
        free[place] = False
        rows_of.append(((place / max(1, len(pairs) - 1)), int(pairs[place])))
    return sorted(rows_of, reverse=True)


def _partners(codes: SiteCodes) -> tuple[dict[int, list[tuple[int, float]]], float]:
    """Whom each feature fires with, and on which share of the pictures that was counted."""
    ends = np.searchsorted(codes.image, np.arange(1, len(codes.image_ids) + 1))
    images = max(1, int(np.searchsorted(ends, SLOTS, side="right")))
    sampled = slice(0, int(ends[min(images, len(ends)) - 1]) if len(ends) else 0)
    used, column = np.unique(codes.feature[sampled], return_inverse=True)
    if len(used) < 2:
        return {}, 1.0
    cell = codes.image[sampled].astype(np.int64) * codes.cells + codes.cell[sampled]
    shape = (min(images, len(ends)) * codes.cells, len(used))
    fires = sp.csr_matrix((np.ones(len(cell), np.int32), (cell, column)), shape=shape)
    both = (fires.T @ fires).tocsr()
    alone = both.diagonal()
    by_feature = {}
    for row in range(len(used)):
        others, together = (values[both.indptr[row] : both.indptr[row + 1]] for values in (both.indices, both.data))
        keep = (others != row) & (together >= LEAST)
        others, together = others[keep], together[keep]
        fraction = together / (alone[row] + alone[others] - together)
        best = np.lexsort((used[others], -fraction))[:PARTNERS]
        by_feature[int(used[row])] = [(int(used[others[i]]), float(fraction[i])) for i in best]
    return by_feature, min(images, len(ends)) / max(1, len(ends))


def _alike(decoder: NDArray[Any], used: NDArray[np.int32]) -> dict[int, list[tuple[int, float]]]:
    """The nearest decoder vectors of each feature that fires, in blocks of rows so that no n × n matrix is built."""
    vectors = np.asarray(decoder, np.float32)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    by_feature = {}
    for begin in range(0, len(used), 512):
        rows = used[begin : begin + 512]
        cosine = vectors[rows] @ vectors.T
        cosine[np.arange(len(rows)), rows] = -np.inf
        best = np.argsort(-cosine, axis=1, kind="stable")[:, : min(PARTNERS, len(vectors) - 1)]
        for row, (number, near) in enumerate(zip(rows.tolist(), best.tolist(), strict=True)):
            by_feature[number] = [(other, float(cosine[row, other])) for other in near]
    return by_feature
