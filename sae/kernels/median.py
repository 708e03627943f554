"""The geometric median: the point of least total distance to all vectors, which outliers hardly move."""

from __future__ import annotations

import torch
from torch import Tensor

from gazetteer.sae.model.chunks import distances


@torch.no_grad()
def geometric_median(vectors: Tensor, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """Weiszfeld's iteration m ← Σ w_i x_i / Σ w_i, w_i = 1 / ‖x_i − m‖, started at the mean.

    Args:
        vectors: [count, d], count >= 1.
        iterations: at most so many.
        tolerance: stop once m moves by less than this share of the mean distance.

    Returns:
        [d].
    """
    median = vectors.mean(dim=0)
    for _ in range(iterations):
        away = distances(vectors, median)
        scale = away.mean()
        if not float(scale) > 0.0:
            return median
        # A vector at the estimate itself would get an infinite weight and pin it there.
        weights = 1.0 / away.clamp_min(1e-6 * float(scale))
        previous, median = median, (weights @ vectors) / weights.sum()
        if float(torch.linalg.vector_norm(median - previous)) < tolerance * float(scale):
            break
    return median
