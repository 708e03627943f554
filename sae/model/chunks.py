"""Reductions over large matrices a few rows at a time: the temporaries of a pass stay small, its sums the same."""

from __future__ import annotations

import torch
from torch import Tensor

# Vectors looked at together: enough for a fast product, few enough that what is made of them stays in the cache.
ROWS = 1024
# Rows of a pass that only reads: what it makes of them stays in a core's own cache, where the same sums cost a tenth.
CACHED = 128
# How far from 1 the length of a vector lies at most that was scaled to unit norm and then kept in 16 bits.
UNIT = 1e-3


def mean_square(x: Tensor, centre: Tensor | None = None) -> Tensor:
    """mean((x − centre)²) over x [rows, d]: scalar; `centre` is [d], None for zero."""
    parts = _parts(x)
    sums = [(part if centre is None else part - centre).square().sum() for part in parts]
    return torch.stack(sums).sum() / x.numel()


def distances(x: Tensor, centre: Tensor) -> Tensor:
    """‖x_i − centre‖ for every row: [rows, d], [d] -> [rows]."""
    return torch.cat([torch.linalg.vector_norm(part - centre, dim=1) for part in _parts(x)])


def remove_along(a: Tensor, b: Tensor) -> None:
    """a_i ← a_i − (a_i · b_i) b_i for every row, in place: [rows, d] twice."""
    for left, right in zip(_parts(a), _parts(b), strict=True):
        left.addcmul_((left * right).sum(dim=1, keepdim=True), right, value=-1.0)


def scale_to_unit(a: Tensor) -> None:
    """Every row of [rows, d] to length 1, in place."""
    for part in _parts(a):
        part.div_(torch.linalg.vector_norm(part, dim=1, keepdim=True).clamp_min_(1e-12))


def lengths_of(vectors: Tensor) -> Tensor:
    """Of every row of [rows, d], float32 [rows]; 1 where that is meant and number types of 16 bits rounded it."""
    lengths = torch.linalg.vector_norm(vectors.detach().float(), dim=1)
    return torch.where((lengths - 1.0).abs() < UNIT, torch.ones_like(lengths), lengths)


def is_finite(x: Tensor) -> bool:
    """Whether x [rows, …] holds neither NaN nor infinity."""
    return all(bool(torch.isfinite(part).all()) for part in _parts(x))


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """Rows a few at a time: on a CPU as many as its cache takes, elsewhere as few launches as the memory allows."""
    return x.split(CACHED if x.device.type == "cpu" else ROWS)
