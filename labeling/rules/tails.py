"""How unlikely a sum of independent draws is, without a floor: Chernoff's bound on what permutations cannot resolve.

P permutations cannot give a p below 1 / (1 + P), and with many tests a false discovery rate needs smaller ones. The
sums here are of independent parts (the shift or order that each block of pictures takes), whose outcomes are all known,
so that for every theta > 0

    P(sum over b of X_b >= x)  <=  exp(sum over b of log E exp(theta X_b) - theta x)        (Chernoff 1952).

The least over a grid of theta is still a bound: it may be several times the exact p, and never below it. What is
minimised is convex in theta, so that the grid is walked down from where a normal distribution would have its least.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_THETAS = np.geomspace(0.5, 48, 16)
"""In units of one over the standard deviation of the sum."""

_ENTRIES = 2**22  # outcomes looked at together


def tail_bound(parts: Sequence[tuple[NDArray[np.generic], float]], observed: NDArray[np.generic]) -> Floats:
    """An upper bound of P(sum >= observed) for T sums at once: float64 [T], at most 1.

    Args:
        parts: (outcomes, times): outcomes [n, b, T] of b independent, uniformly drawn parts, each of which is drawn
            `times` times.
        observed: [T].
    """
    entries = sum(outcomes.shape[0] * outcomes.shape[1] for outcomes, _ in parts)
    step = max(1, _ENTRIES // max(1, entries))
    bounds = [
        _bound([(outcomes[:, :, at : at + step], times) for outcomes, times in parts], observed[at : at + step])
        for at in range(0, len(observed), step)
    ]
    return np.concatenate([np.zeros(0), *bounds])


def _bound(parts: Sequence[tuple[NDArray[np.generic], float]], observed: NDArray[np.generic]) -> Floats:
    """`tail_bound` of few sums."""
    target = np.asarray(observed, np.float64).copy()
    variance = np.zeros(len(target))
    centred = []
    for outcomes, times in parts:
        values = np.asarray(outcomes, np.float64)
        mean = values.mean(axis=0)
        values = values - mean
        target -= times * mean.sum(axis=0)
        variance += times * np.square(values).mean(axis=0).sum(axis=0)
        centred.append((values, times))
    spread = np.sqrt(variance)
    best = np.zeros(len(target))
    spread_rows = np.flatnonzero(spread > 0)
    if len(spread_rows):
        taken = [(values[:, :, spread_rows] / spread[spread_rows], times) for values, times in centred]
        best[spread_rows] = _least(taken, target[spread_rows] / spread[spread_rows])
    return np.where(spread > 0, np.exp(best), 1.0)


def _least(centred: Sequence[tuple[Floats, float]], target: Floats) -> Floats:
    """The lowest of the logarithms over the grid, and of 0, by walking downhill: float64 [T]."""
    last = len(_THETAS) - 1
    ratio = np.log(_THETAS[1] / _THETAS[0])
    start = np.rint(np.log(np.maximum(target, _THETAS[0]) / _THETAS[0]) / ratio)
    at = np.clip(start, 0, last).astype(np.int64)
    pair = np.arange(len(target))
    lowest = _log(centred, target, pair, at)
    for step in (1, -1):
        move, place = pair, at
        while len(move):
            place = place + step
            inside = (place >= 0) & (place <= last)
            move, place = move[inside], place[inside]
            value = _log(centred, target, move, place)
            lower = value < lowest[move]
            move, place, value = move[lower], place[lower], value[lower]
            lowest[move] = value
    return np.minimum(lowest, 0.0)


def _log(
    centred: Sequence[tuple[Floats, float]], target: Floats, pair: NDArray[np.int64], at: NDArray[np.int64]
) -> Floats:
    """The logarithm of Chernoff's bound of some sums, each at its place in the grid."""
    theta = _THETAS[at]
    log = -theta * target[pair]
    for values, times in centred:
        scaled = (values if len(pair) == len(target) else values[:, :, pair]) * theta
        peak = scaled.max(axis=0)
        scaled -= peak
        np.exp(scaled, out=scaled)
        log += times * (peak + np.log(scaled.mean(axis=0))).sum(axis=0)
    return log
