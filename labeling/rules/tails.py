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

_RATIO = np.log(_THETAS[1] / _THETAS[0])

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


def tail_bound_of_one(parts: Sequence[NDArray[np.generic]], observed: float) -> float:
    """`tail_bound` of one sum, each of whose parts [n, b] is drawn once: the same steps without an axis of sums, which
    would take longer to keep than to reckon with."""
    target, variance, centred = float(observed), 0.0, []
    for outcomes in parts:
        mean = np.add.reduce(outcomes, axis=0) / len(outcomes)
        values = outcomes - mean
        target -= float(np.add.reduce(mean))
        variance += float(np.add.reduce(np.add.reduce(np.square(values), axis=0) / len(outcomes)))
        centred.append(values)
    spread = np.sqrt(variance)
    if not spread > 0:
        return 1.0
    target /= spread
    scaled = []
    for values in centred:
        values /= spread
        scaled.append((values, np.maximum.reduce(values, axis=0), np.empty_like(values)))
    return float(np.exp(_least_of_one(scaled, target)))


def _least_of_one(scaled: Sequence[tuple[Floats, Floats, Floats]], target: float) -> float:
    """`_least` of one sum; of every part its outcomes, the highest of them, and room."""
    last = len(_THETAS) - 1
    at = int(np.clip(np.rint(np.log(max(target, _THETAS[0]) / _THETAS[0]) / _RATIO), 0, last))
    lowest = _log_of_one(scaled, target, _THETAS[at])
    for step in (1, -1):
        place = at + step
        while 0 <= place <= last:
            value = _log_of_one(scaled, target, _THETAS[place])
            if not value < lowest:
                break
            lowest, place = value, place + step
    return min(lowest, 0.0)


def _log_of_one(scaled: Sequence[tuple[Floats, Floats, Floats]], target: float, theta: float) -> float:
    log = -theta * target
    for values, highest, room in scaled:
        peak = highest * theta
        np.multiply(values, theta, out=room)
        np.subtract(room, peak, out=room)
        np.exp(room, out=room)
        log += float(np.add.reduce(peak + np.log(np.add.reduce(room, axis=0) / len(room))))
    return float(log)


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
    start = np.rint(np.log(np.maximum(target, _THETAS[0]) / _THETAS[0]) / _RATIO)
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
