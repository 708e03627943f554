"""Calibration: from summed evidence to the probability that a cell shows a concept, fitted on training pictures only.

A handful of numbers a concept: an intercept, the weight of the layout prior's log odds, and for every site that is
listened to together the weights of the cell's evidence, of its neighbourhood's (mean over 3 x 3 cells) and of the whole
picture's (mean over all cells). They are fitted by ridge logistic regression on the cells' mask shares, each concept
drawn towards the fit of all concepts together, so that a rare one keeps sensible numbers.

Two questions, two fits: *where* is a concept, given that the picture shows what its prompt names (fitted on such pairs
only, judged by IoU and pointing), and *whether* it is there at all (fitted on every pair the detector was asked about).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import expit, logit

from gazetteer.labeling.evidence.pooling import Grid, cell_edges
from gazetteer.labeling.layout.metrics import Truth, fit_thresholds

Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

RIDGE = 20.0
"""Pull towards the common fit, in cells."""

MOST_CELLS = 20_000
"""Cells a concept's fit is made on, three times as many for all together: drawn evenly, always the same ones."""

_STEPS = 25


@dataclass(frozen=True)
class Calibration:
    """Attributes: weights float64 [C, inputs + 1], the intercept first; thresholds float32 [C] for probabilities."""

    weights: NDArray[np.float64]
    thresholds: Floats

    def probabilities(self, inputs: Floats) -> Floats:
        """float32 [N, cells, C] from inputs [N, cells, C, inputs]."""
        raw = np.einsum("ncki,ki->nck", inputs, self.weights[:, 1:], optimize=True) + self.weights[:, 0]
        return expit(raw).astype(np.float32)


def on_grid(maps: NDArray[T], own: Grid, grid: Grid) -> NDArray[T]:
    """[N, cells of `own`, ...] -> [N, cells of `grid`, ...]: cells that are cut keep their value (nearest neighbour),
    those that are joined come to their mean."""
    if own == grid:
        return maps
    wide = maps.reshape(len(maps), *own, *maps.shape[2:])
    for axis, many in enumerate(grid, start=1):
        wide = _along(wide, axis, many)
    return wide.reshape(len(maps), grid[0] * grid[1], *maps.shape[2:])


def _along(maps: NDArray[T], axis: int, many: int) -> NDArray[T]:
    """The maps with so many cells along an axis."""
    few = maps.shape[axis]
    if many >= few:
        return np.take(maps, np.arange(many) * few // many, axis=axis)
    starts = cell_edges(few, many)
    shape = [-1 if place == axis else 1 for place in range(maps.ndim)]
    means = np.add.reduceat(maps, starts[:-1], axis=axis) / np.diff(starts).reshape(shape)
    return np.asarray(means, maps.dtype)


def inputs_of(parts: Sequence[tuple[Floats, Grid]], prior: Floats | None, grid: Grid) -> Floats:
    """What the calibration reads: cell, neighbourhood and picture evidence of every site, then the prior's log odds.

    Args:
        parts: per site its evidence [N, cells, C] and its grid.
        prior: mean masks [1 or N, cells of `grid`, C], or None to leave places out.
        grid: the grid of the result.
    Returns:
        float32 [N, cells of `grid`, C, 3 * parts + 1], without the last one when there is no prior.
    """
    columns: list[NDArray[np.generic]] = []
    for evidence, own in parts:
        n, cells, concepts = evidence.shape
        near = uniform_filter(evidence.reshape(n, *own, concepts), size=(1, 3, 3, 1), mode="nearest")
        whole = np.broadcast_to(evidence.mean(axis=1, keepdims=True), evidence.shape)
        columns += [on_grid(maps, own, grid) for maps in (evidence, near.reshape(n, cells, concepts), whole)]
    if prior is not None:
        columns.append(np.broadcast_to(prior_logit(prior), columns[0].shape))
    return np.stack(columns, axis=3).astype(np.float32)


def prior_logit(prior: Floats) -> Floats:
    """Log odds of a prior map, kept finite."""
    odds: Floats = logit(np.clip(prior.astype(np.float64), 1e-3, 1.0 - 1e-3)).astype(np.float32)
    return odds


@dataclass(frozen=True)
class LayoutFit:
    """Both calibrations of one method at one step."""

    where: Calibration
    whether: Calibration

    @classmethod
    def of(cls, inputs: Floats, truth: Truth) -> LayoutFit:
        """Fit on training pictures; arguments as for `calibrate`."""
        return cls(calibrate(inputs, truth, truth.wanted), calibrate(inputs, truth, truth.asked))

    def peaks(self, inputs: Floats) -> Floats:
        """How likely the picture shows each concept somewhere: the highest probability of a cell, [N, C]."""
        return self.whether.probabilities(inputs).max(axis=1)


def calibrate(inputs: Floats, truth: Truth, pairs: NDArray[np.bool_]) -> Calibration:
    """Fit weights and thresholds on training pictures.

    Args:
        inputs: [N, cells, C, inputs]; evidence of a picture must not come from itself (`own_counts.OwnCounts`).
        truth: of the same N pictures.
        pairs: bool [N, C], the (picture, concept) pairs to fit on.
    """
    fraction = (truth.pixels / truth.areas).transpose(0, 2, 1)  # [N, cells, C]
    scale = np.maximum(np.abs(inputs).mean(axis=(0, 1, 2), dtype=np.float64), 1e-6)
    design, target = [], []
    for c in range(inputs.shape[2]):
        flat = inputs[pairs[:, c], :, c].reshape(-1, inputs.shape[3])
        x, y = _some(flat, fraction[pairs[:, c], :, c].ravel(), MOST_CELLS)
        design.append(np.concatenate([np.ones((len(x), 1)), x / scale], axis=1))
        target.append(y)
    zero = np.zeros(inputs.shape[3] + 1)
    shared = [_some(x, y, 3 * MOST_CELLS // len(design) + 1) for x, y in zip(design, target, strict=True)]
    every_x, every_y = (np.concatenate([part[side] for part in shared]) for side in (0, 1))
    common = logistic(every_x, every_y, zero, 1.0)
    weights = np.stack([logistic(x, y, common, RIDGE) for x, y in zip(design, target, strict=True)])
    weights[:, 1:] /= scale
    fitted = Calibration(weights, np.zeros(len(weights), np.float32))
    return Calibration(weights, fit_thresholds(fitted.probabilities(inputs), truth))


def logistic(
    x: NDArray[np.floating], y: NDArray[np.floating], centre: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Newton's method for logistic regression on shares y in [0, 1] with the penalty ridge/2 · |w - centre|².

    Targets are shares and the penalty draws towards a centre other than 0: scikit-learn's has neither.

    Args:
        x: [M, inputs], a column of ones included if an intercept is wanted; y: [M].
    Returns:
        float64 [inputs].
    """
    weights = centre.copy()
    loss = _loss(x, y, weights, centre, ridge)
    for _ in range(_STEPS):
        p = expit(x @ weights)
        gradient = x.T @ (p - y) + ridge * (weights - centre)
        curve = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(weights))
        step = np.linalg.solve(curve, gradient)
        size = 1.0
        while (lower := _loss(x, y, weights - size * step, centre, ridge)) > loss and size > 1e-4:
            size /= 2
        weights = weights - size * step
        done = loss - lower < 1e-7 * max(loss, 1.0)
        loss = lower
        if done:
            break
    return weights


def _loss(
    x: NDArray[np.floating], y: NDArray[np.floating], w: NDArray[np.float64], centre: NDArray[np.float64], ridge: float
) -> float:
    z = x @ w
    return float((np.logaddexp(0.0, z) - y * z).sum() + 0.5 * ridge * ((w - centre) ** 2).sum())


def _some(
    x: NDArray[np.floating], y: NDArray[np.floating], most: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """At most `most` of the rows, drawn without regard to what they hold."""
    if len(x) <= most:
        return x, y
    rows = np.random.default_rng(0).choice(len(x), most, replace=False)
    return x[rows], y[rows]
