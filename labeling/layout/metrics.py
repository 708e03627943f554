"""How good score maps are: IoU, pointing and presence, with intervals over pictures.

Masks enter as pixels per cell (labeling/evidence/pooling.py), so every IoU is exact in pixels although maps are grids.
A score may be compared for a (picture, concept) pair only if the pair is *wanted*: the prompt names the concept and
the finished picture shows it, as in arXiv 2504.15473, section 4.2. Means are taken over the pairs of a concept first,
then over concepts, so that frequent ones do not drown the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.quality.intervals import interval_of, say_of_others

BINS = 64
"""Thresholds tried per concept: quantiles of its training scores."""

FEW_PAIRS = 8
"""A concept with fewer training pairs takes the threshold of all concepts together."""

Interval = tuple[float, float, float]
"""Value, low and high; NaN three times where there is none, and for low and high where one picture, or pictures of one
prompt, are all there is: they say nothing of others."""


@dataclass(frozen=True)
class Truth:
    """The masks of N pictures on one grid.

    Attributes:
        pixels: int32 [N, C, cells], pixels of the concept in the cell; float32 where pictures or cells differ in size,
            scaled to those of a cell of `areas`.
        areas: float64 [cells], pixels of the cell.
        wanted: bool [N, C], pairs that are judged by IoU and pointing.
        asked: bool [N, C], pairs the detector was asked about: presence is known.
    """

    pixels: NDArray[np.int32] | NDArray[np.float32]
    areas: NDArray[np.float64]
    wanted: NDArray[np.bool_]
    asked: NDArray[np.bool_]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether the picture shows the concept: bool [N, C]."""
        return np.asarray(self.pixels.any(axis=2), np.bool_)

    def take(self, images: NDArray[np.int64]) -> Truth:
        """The truth of some pictures, in the order given."""
        return Truth(self.pixels[images], self.areas, self.wanted[images], self.asked[images])


def fit_thresholds(scores: NDArray[np.float32], truth: Truth) -> NDArray[np.float32]:
    """The threshold of every concept with the highest mean IoU on training pairs: float32 [C].

    A cell is predicted when its score is >= the threshold. All concepts together decide for one with few pairs.

    Args:
        scores: [N, cells, C] of training pictures.
        truth: of the same pictures.
    """
    concepts = scores.shape[2]
    pairs = [np.flatnonzero(truth.wanted[:, c]) for c in range(concepts)]
    everything = [scores[pairs[c], :, c] for c in range(concepts)]
    masks = [truth.pixels[pairs[c], c] for c in range(concepts)]
    joined = np.concatenate(everything) if everything else np.zeros((0, scores.shape[1]), np.float32)
    if not len(joined):
        return np.full(concepts, np.inf, np.float32)
    shared = best_threshold(joined, np.concatenate(masks), truth.areas)
    thresholds = np.full(concepts, shared, np.float32)
    for c in range(concepts):
        if len(pairs[c]) >= FEW_PAIRS:
            thresholds[c] = best_threshold(everything[c], masks[c], truth.areas)
    return thresholds


def best_threshold(
    scores: NDArray[np.float32], pixels: NDArray[np.generic], areas: NDArray[np.float64], bins: int = BINS
) -> float:
    """The threshold with the highest mean IoU over P pairs.

    Args:
        scores: [P, cells]; pixels: [P, cells] of the masks; areas: [cells].
        bins: quantiles of the scores that are tried.
    """
    # Scores that occur, not values between them: with no more scores than bins every threshold is tried.
    edges = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, bins), method="lower"))
    level = np.searchsorted(edges, scores, side="right") - 1  # cell is predicted by edges[: level + 1]
    flat = (np.arange(len(scores))[:, None] * len(edges) + np.maximum(level, 0)).ravel()
    shape = (len(scores), len(edges))
    inside = np.bincount(flat, pixels.ravel().astype(np.float64), minlength=shape[0] * shape[1]).reshape(shape)
    weight = np.broadcast_to(areas, scores.shape).ravel()
    size = np.bincount(flat, weight, minlength=shape[0] * shape[1]).reshape(shape)
    inter = inside[:, ::-1].cumsum(axis=1)[:, ::-1]
    chosen = size[:, ::-1].cumsum(axis=1)[:, ::-1]
    iou = inter / np.maximum(chosen + pixels.sum(axis=1, dtype=np.float64)[:, None] - inter, 1e-9)
    return float(edges[iou.mean(axis=0).argmax()])


def pair_ious(scores: NDArray[np.float32], truth: Truth, thresholds: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU in pixels of every wanted pair, NaN elsewhere: float64 [N, C]."""
    chosen = (scores >= thresholds).transpose(0, 2, 1)
    inter = np.where(chosen, truth.pixels, 0).sum(axis=2, dtype=np.float64)
    union = chosen @ truth.areas + truth.pixels.sum(axis=2, dtype=np.float64) - inter
    return np.where(truth.wanted, inter / np.maximum(union, 1e-9), np.nan)


def pair_pointing(scores: NDArray[np.float32], truth: Truth) -> NDArray[np.float64]:
    """Share of the strongest cell's pixels that lie in the mask (mean over tied cells), NaN unless wanted: [N, C]."""
    maps = scores.transpose(0, 2, 1)
    top = maps >= maps.max(axis=2, keepdims=True)
    fraction = np.where(top, truth.pixels / truth.areas, 0.0).sum(axis=2) / top.sum(axis=2)
    return np.where(truth.wanted, fraction, np.nan)


def macro_mean(
    values: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.int64] | None = None
) -> Interval:
    """Mean over concepts of the mean over pairs, and its 95 % percentile interval over resampled pictures.

    Args:
        values: [N, C], NaN where there is no pair.
        weights, groups: of `gazetteer.labeling.quality.intervals.sample_weights`.
    """
    defined = ~np.isnan(values)
    total = weights @ np.where(defined, values, 0.0)
    count = weights @ defined.astype(np.float64)
    return _interval(_mean_of_defined(total, count), say_of_others(np.atleast_1d(defined.any(axis=1)), groups))


def concept_means(
    values: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.int64] | None = None
) -> list[Interval]:
    """As `macro_mean`, of every concept alone: [C]; NaN three times for one without a pair."""
    return [macro_mean(values[:, [c]], weights, groups) for c in range(values.shape[1])]


def average_precision(
    peaks: NDArray[np.float32], truth: Truth, weights: NDArray[np.float64], groups: NDArray[np.int64] | None = None
) -> Interval:
    """Presence: mean over concepts of the average precision of `peaks` [N, C] (equal scores rank as one).

    As scikit-learn's, for all resamples at once: its own takes one set of weights a call, and there are a thousand.
    """
    precisions = np.full((len(weights), peaks.shape[1]), np.nan)
    present = truth.present
    for c in range(peaks.shape[1]):
        known = np.flatnonzero(truth.asked[:, c])
        if not present[known, c].any() or present[known, c].all():
            continue
        order = known[np.argsort(-peaks[known, c], kind="stable")]
        ends = np.flatnonzero(np.append(np.diff(peaks[order, c]) != 0, True))
        hits = np.cumsum(weights[:, order] * present[order, c], axis=1)[:, ends]
        seen = np.cumsum(weights[:, order], axis=1)[:, ends]
        steps = np.diff(hits, axis=1, prepend=0.0)
        all_hits = hits[:, -1]
        summed = (steps * hits / np.maximum(seen, 1e-9)).sum(axis=1)
        precisions[:, c] = np.where(all_hits > 0, summed / np.maximum(all_hits, 1e-9), np.nan)
    defined = ~np.isnan(precisions)
    means = _mean_of_defined(np.where(defined, precisions, 0.0), defined.astype(np.float64))
    value, low, high = _interval(means, say_of_others(np.atleast_1d(truth.asked[:, defined[0]].any(axis=1)), groups))
    return value, max(low, 0.0), min(high, 1.0)  # moved by their bias, ends can leave what a precision can be


def _mean_of_defined(total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """[samples, C] sums and counts -> [samples], mean over the concepts with a count; NaN when there is none."""
    means = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    concepts = (count > 0).sum(axis=1)
    return np.divide(means.sum(axis=1), concepts, out=np.full(len(total), np.nan), where=concepts > 0)


def _interval(values: NDArray[np.float64], several: bool) -> Interval:
    """The interval of values in the sample and its resamples, moved by their bias: average precision has one.

    several: whether there is more than one group of pictures to draw from.
    """
    value, low, high = interval_of(values, moved=True)
    return (float(value), float(low), float(high)) if several else (float(value), np.nan, np.nan)
