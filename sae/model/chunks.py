"""Reductions over large matrices a few rows at a time: the temporaries of a pass stay small, its sums the same."""

from __future__ import annotations

import torch
from torch import Tensor

# Vectors looked at together: enough for a fast product, few enough that what is made of them stays in the cache.
ROWS = 1024
# Rows of a pass that only reads: what it makes of them stays in a core's own cache, where the same sums cost a tenth.
CACHED = 128


def mean_square(x: Tensor, centre: Tensor | None = None) -> Tensor:
    """mean((x − centre)²) over x [rows, d]: scalar; `centre` is [d], None for zero."""
    parts = x.split(CACHED)
    sums = [(part if centre is None else part - centre).square().sum() for part in parts]
    return torch.stack(sums).sum() / x.numel()


def distances(x: Tensor, centre: Tensor) -> Tensor:
    """‖x_i − centre‖ for every row: [rows, d], [d] -> [rows]."""
    return torch.cat([torch.linalg.vector_norm(part - centre, dim=1) for part in x.split(CACHED)])


def row_dots(a: Tensor, b: Tensor) -> Tensor:
    """a_i · b_i for every row: [rows, d] twice -> [rows]."""
    pairs = zip(a.split(CACHED), b.split(CACHED), strict=True)
    return torch.cat([(left * right).sum(dim=1) for left, right in pairs])


def is_finite(x: Tensor) -> bool:
    """Whether x [rows, …] holds neither NaN nor infinity."""
    return all(bool(torch.isfinite(part).all()) for part in x.split(CACHED))
