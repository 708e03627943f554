"""How far two sets of pictures, or two pictures, are apart in some network's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError

Features = Callable[[Sequence[NDArray[np.uint8]]], list[list[NDArray[np.float32]]]]
"""Pictures uint8 [H, W, 3] -> per picture its feature maps [channels, h, w], one per level of the network."""


def pooled(maps: Sequence[Sequence[NDArray[np.float32]]]) -> NDArray[np.float64]:
    """One vector per picture: the mean over cells of its last level, [pictures, channels]."""
    return np.stack([levels[-1].astype(np.float64).mean((1, 2)) for levels in maps])


def frechet_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), FID's formula (Heusel et al. 1706.08500, eq. 6).

    tr (Σ₁Σ₂)^½ is the sum of the singular values of X₁X₂ᵀ of the centred rows, so fewer pictures than channels are no
    trouble to compute; the estimate is then biased upwards, and only sets of one size compare.

    Args:
        one, other: [pictures, channels], at least 2 pictures each.

    Raises:
        InputError: fewer than 2 pictures.
    """
    if min(len(one), len(other)) < 2:
        raise InputError("A Fréchet distance needs at least 2 pictures on each side.")
    rows = [x - x.mean(0) for x in (one, other)]
    scaled = [x / np.sqrt(len(x) - 1) for x in rows]
    both = np.linalg.svd(scaled[0] @ scaled[1].T, compute_uv=False).sum()
    means = one.mean(0) - other.mean(0)
    return float(means @ means + (scaled[0] ** 2).sum() + (scaled[1] ** 2).sum() - 2 * both)


def kernel_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """KID: unbiased squared MMD with the kernel (x·y / d + 1)³ (Bińkowski et al. 1801.01401); may be below 0.

    Args:
        one, other: [pictures, channels], at least 2 pictures each.

    Raises:
        InputError: fewer than 2 pictures.
    """
    if min(len(one), len(other)) < 2:
        raise InputError("A kernel distance needs at least 2 pictures on each side.")

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (a @ b.T / a.shape[1] + 1) ** 3
        return found

    within = []
    for x in (one, other):
        table = kernel(x, x)
        within.append((table.sum() - np.trace(table)) / (len(x) * (len(x) - 1)))
    return float(within[0] + within[1] - 2 * kernel(one, other).mean())


def perceptual_distance(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> float:
    """LPIPS's formula without its learned weights (Zhang et al. 1801.03924, eq. 1 with w = 1): 0 for equal pictures.

    Every cell's channels are scaled to length 1; squared differences are summed over channels, averaged over cells and
    then over levels, so the result lies in 0..4 (2 for unrelated directions).

    Args:
        one, other: feature maps [channels, h, w] of two pictures, level by level.
    """
    found = []
    for a, b in zip(one, other, strict=True):
        units = [x / np.maximum(np.linalg.norm(x, axis=0, keepdims=True), 1e-10) for x in (a, b)]
        found.append(float(((units[0] - units[1]) ** 2).sum(0).mean()))
    return float(np.mean(found))
