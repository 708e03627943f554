"""How unlikely a sum of independent draws is, without a floor: Chernoff's bound on what permutations cannot resolve.

P permutations cannot give a p below 1 / (1 + P), and with many tests a false discovery rate needs smaller ones. The
sums here are of independent parts (the shift or order that each block of pictures takes), whose outcomes are all known,
so that for every theta > 0

    P(sum over b of X_b >= x)  <=  exp(sum over b of log E exp(theta X_b) - theta x)        (Chernoff 1952).

The least over a grid of theta is still a bound: it may be several times the exact p, and never below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_THETAS = np.geomspace(0.5, 48, 16)
"""In units of one over the standard deviation of the sum."""

_ENTRIES = 2**20  # exponentials at a time


def tail_bound(parts: Sequence[tuple[NDArray[np.generic], float]], observed: NDArray[np.generic]) -> Floats:
    """An upper bound of P(sum >= observed) for T sums at once: float64 [T], at most 1.

    Args:
        parts: (outcomes, times): outcomes [n, b, T] of b independent, uniformly drawn parts, each of which is drawn
            `times` times.
        observed: [T].
    """
    target = np.asarray(observed, np.float64).copy()
    variance = np.zeros(len(target))
    centred = []
    for outcomes, times in parts:
        values = np.asarray(outcomes, np.float64)
        mean = values.mean(axis=0)
        target -= times * mean.sum(axis=0)
        variance += times * values.var(axis=0).sum(axis=0)
        centred.append((values - mean, times))
    spread = np.sqrt(variance)
    unit = np.where(spread > 0, spread, 1.0)
    best = np.zeros(len(target))
    step = max(1, _ENTRIES // max(1, sum(values.size for values, _ in centred)))
    for start in range(0, len(_THETAS), step):
        thetas = _THETAS[start : start + step, None]
        log = -thetas * (target / unit)
        for values, times in centred:
            scaled = values * (thetas / unit)[:, None, None, :]
            peak = scaled.max(axis=1)
            log += times * (peak + np.log(np.exp(scaled - peak[:, None]).mean(axis=1))).sum(axis=1)
        best = np.minimum(best, log.min(axis=0))
    return np.where(spread > 0, np.exp(best), 1.0)
