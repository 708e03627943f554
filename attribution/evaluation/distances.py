"""How far two sets of pictures, or two pictures, are apart in some network's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.quality.intervals import bootstrap

Features = Callable[[Sequence[NDArray[np.uint8]]], list[list[NDArray[np.float32]]]]
"""Pictures uint8 [H, W, 3] -> per picture its feature maps [channels, h, w], one per level of the network."""


def pooled(maps: Sequence[Sequence[NDArray[np.float32]]]) -> NDArray[np.float64]:
    """One vector per picture: the mean over cells of its last level, [pictures, channels]."""
    return np.stack([levels[-1].astype(np.float64).mean((1, 2)) for levels in maps])


def traits(maps: Sequence[Sequence[NDArray[np.float32]]]) -> NDArray[np.float64]:
    """One vector per picture: mean and standard deviation over cells of every channel of every level."""
    rows = []
    for levels in maps:
        flat = [level.astype(np.float64).reshape(len(level), -1) for level in levels]
        rows.append(np.concatenate([part for maps in flat for part in (maps.mean(1), maps.std(1))]))
    return np.stack(rows)


def frechet_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), FID's formula (Heusel et al. 1706.08500, eq. 6).

    tr (Σ₁Σ₂)^½ is the sum of the singular values of X₁X₂ᵀ of the centred rows, so fewer pictures than channels are no
    trouble to compute; the estimate is then biased upwards, and only sets of one size compare. With more pictures than
    channels X = QR, and R₁R₂ᵀ has the same singular values: no matrix is larger than the features.

    Args:
        first, second: [pictures, channels], at least 2 pictures each.

    Raises:
        InputError: fewer than 2 pictures.
    """
    if min(len(first), len(second)) < 2:
        raise InputError("A Fréchet distance needs at least 2 pictures on each side.")
    rows = [x - x.mean(0) for x in (first, second)]
    scaled = [x / np.sqrt(len(x) - 1) for x in rows]
    small = [_reduced(x) for x in scaled]
    both = np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum()
    means = first.mean(0) - second.mean(0)
    return float(means @ means + (scaled[0] ** 2).sum() + (scaled[1] ** 2).sum() - 2 * both)


def _reduced(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """R of X = QR, where that is smaller than X."""
    if len(rows) <= rows.shape[1]:
        return rows
    triangle: Any = np.linalg.qr(rows, mode="r")
    return np.asarray(triangle)


def same_pictures(features: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which rows are of one picture, as a number per row from 0: features that are equal but for rounding.

    A picture that is painted again in another batch differs in its last digits (about 5e-5 of its features' length).

    Args:
        features: [pictures, channels].
    """
    numbers, first = np.zeros(len(features), dtype=np.int64), np.empty((0, features.shape[1]))
    for place, row in enumerate(features):
        near = np.linalg.norm(first - row, axis=1) <= 1e-3 * np.linalg.norm(row)
        if not near.any():
            first, near = np.vstack([first, row]), np.append(near, True)
        numbers[place] = near.argmax()
    return numbers


def kernel_distance(
    intact: NDArray[np.float64], edited: NDArray[np.float64], *, resamples: int = 0, seed: int = 0
) -> list[float]:
    """KID of same-seed pairs: squared MMD with the kernel k(x, y) = (x·y / d + 1)³ (Bińkowski et al. 1801.01401).

    The mean over pairs i ≠ j of k(xᵢ, xⱼ) + k(yᵢ, yⱼ) − k(xᵢ, yⱼ) − k(xⱼ, yᵢ) (Gretton et al. 2012, eq. 4), leaving out
    those of one intact picture: the usual mean over all k(xᵢ, yⱼ) counts a picture with its own edit, which lies nearer
    than another seed's, and falls below the truth. Unbiased; may be below 0.

    Args:
        intact, edited: x and y, [pairs, channels]; a picture may occur several times among the intact ones.
        resamples: of a bootstrap over distinct intact pictures.

    Returns:
        [value, low, high]: its middle 95 %, widened to hold the value where few draws leave it out.

    Raises:
        InputError: fewer than 2 distinct intact pictures.
    """
    x, y = (side / np.sqrt(side.shape[1]) for side in (intact, edited))
    numbers = same_pictures(intact)
    if not len(numbers) or (many := int(numbers.max()) + 1) < 2:
        raise InputError("A kernel distance needs at least 2 distinct pictures.")
    across = (x @ y.T + 1) ** 3
    table = (x @ x.T + 1) ** 3 + (y @ y.T + 1) ** 3 - across - across.T
    member = np.eye(many)[numbers]
    apart = 1 - np.eye(many)
    sums, counts = member.T @ table @ member * apart, np.outer(member.sum(0), member.sum(0)) * apart

    def distances(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = ((weights @ counts) * weights).sum(1)  # 0 where one picture alone was drawn
        return np.divide(((weights @ sums) * weights).sum(1), whole, out=np.full(len(whole), np.nan), where=whole > 0)

    value, low, high = bootstrap(distances, many, resamples=resamples, seed=seed)
    return [float(value), min(float(low), float(value)), max(float(high), float(value))]


def perceptual_distance(first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]) -> float:
    """LPIPS's formula without its learned weights (Zhang et al. 1801.03924, eq. 1 with w = 1): 0 for equal pictures.

    Every cell's channels are scaled to length 1; squared differences are summed over channels, averaged over cells and
    then over levels, so the result lies in 0..4 (2 for unrelated directions).

    Args:
        first, second: feature maps [channels, h, w] of two pictures, level by level.
    """
    distances = []
    for a, b in zip(first, second, strict=True):
        units = [x / np.maximum(np.linalg.norm(x, axis=0, keepdims=True), 1e-10) for x in (a, b)]
        distances.append(float(((units[0] - units[1]) ** 2).sum(0).mean()))
    return float(np.mean(distances))
