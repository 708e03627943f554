"""How sure a number is: 95 % percentile bootstrap intervals (Efron 1979), vectorised, of any statistic.

A sample is not a list of members but how often each was drawn, so that a statistic is told weights, float64
[samples, members], and answers with its value in every sample at once, [samples, …]. The row of ones is the sample
itself. `scipy.stats.bootstrap` passes on the members instead: it can neither draw groups, nor members within drawn
groups, nor let several statistics see the same samples, and what it is slow at is done a thousand times here.

    value, low, high = bootstrap(lambda weights: weights @ x / weights.sum(axis=1), len(x))
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = list[float | None]
"""Value, low and high; None three times where there is nothing to say, and for low and high where a single member says
nothing of others."""

Statistic = Callable[[Floats], Floats]
"""Weights [samples, members] -> values [samples, …]; NaN where a sample has nothing to measure."""

RESAMPLES = 1000
QUANTILES = (0.025, 0.975)
_Z2 = 1.959964**2
"""Of the normal distribution's 97.5 % quantile."""


def sample_weights(
    members: int, resamples: int = RESAMPLES, seed: int = 0, groups: NDArray[np.int64] | None = None
) -> Floats:
    """How often each member is drawn: in the sample (row 0, all ones), then in each resample; [1 + R, members].

    groups: [members], equal numbers for members that are drawn together; None: each by itself.
    """
    if groups is not None:
        names, firsts, group = np.unique(groups, return_index=True, return_inverse=True)
        place = np.argsort(np.argsort(firsts))  # groups in the order in which they come
        return sample_weights(len(names), resamples, seed)[:, place[group.ravel()]]
    drawn = np.random.default_rng(seed).multinomial(members, np.full(members, 1.0 / members), size=resamples)
    return np.concatenate([np.ones((1, members)), drawn])


def interval_of(values: Floats, *, moved: bool = False) -> Floats:
    """Value, 2.5 % and 97.5 % quantile: [3, …] from the values in the sample itself and in every resample [1 + R, …].

    Resamples without a value are passed over; without any, the value stands for its own interval.

    Args:
        moved: move the interval by the resamples' bias. Members drawn twice make some statistics too high, such as
            average precision; a mean has next to no bias.
    """
    value, drawn = values[0], values[1:] if len(values) > 1 else values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of slices that are all NaN, which are meant
        low, high = np.nanquantile(drawn, QUANTILES, axis=0)
        bias = np.nanmean(drawn, axis=0) - value if moved else 0.0
    ends = [np.where(np.isnan(end), value, end - bias) for end in (low, high)]
    interval: Floats = np.where(np.isnan(value), np.nan, np.stack([value, *ends]))
    return interval


def say_of_others(carry: NDArray[np.bool_], groups: NDArray[np.int64] | None = None) -> bool:
    """Whether members of two groups or more carry a value: one alone says nothing of others, and has no interval.

    Args:
        carry: bool [members]; groups: as `sample_weights`.
    """
    members = np.flatnonzero(carry)
    return len(members if groups is None else np.unique(groups[members])) > 1


def bootstrap(statistic: Statistic, members: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Value and interval of a statistic over resampled members: [3, …]."""
    return interval_of(statistic(sample_weights(members, resamples, seed)))


def grouped_mean(values: Sequence[float], groups: Sequence[object], *, resamples: int, seed: int = 0) -> Interval:
    """Mean of all values, whole groups (such as the pictures of one prompt) drawn; rounded to 4 decimals."""
    interval = _grouped_mean(values, groups, resamples, seed)
    return interval if len(set(groups)) != 1 else [interval[0], None, None]


def _grouped_mean(values: Sequence[float], groups: Sequence[object], resamples: int, seed: int) -> Interval:
    if not len(values):
        return [None] * 3
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    member = np.array([names[group] for group in groups])
    sums, counts = np.bincount(member, np.asarray(values, float)), np.bincount(member)
    interval = bootstrap(
        lambda weights: (weights @ sums) / (weights @ counts), len(names), resamples=resamples, seed=seed
    )
    return [round(float(end), 4) for end in interval]


def fraction_interval(
    hits: Sequence[float], groups: Sequence[object] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """How many of the hits (1 or 0) are: as `grouped_mean`, where none of n and all of n are not certain.

    Args:
        groups: drawn whole; none: every hit is drawn by itself. n is their number.
    """
    members = range(len(hits)) if groups is None else groups
    interval = _grouped_mean(hits, members, resamples, seed)
    return [end if end is None else round(end, 4) for end in never_certain(interval, len(set(members)), 0.0)]


def mean_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean of the values that are there (not NaN), which are drawn."""
    defined = np.asarray(values, float)
    defined = defined[~np.isnan(defined)]
    if len(defined) < 2:
        return [float(defined[0]) if len(defined) else None, None, None]
    return as_interval(
        bootstrap(lambda weights: weights @ defined / len(defined), len(defined), resamples=resamples, seed=seed)
    )


def nested_bootstrap(
    statistics: Sequence[Statistic], sizes: Sequence[int], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean over groups of a statistic of each group's members: groups are drawn, and members within each drawn one.

    Where one member of one group is all there is, low and high are None.

    Args:
        statistics: one a group, [samples, members of the group] -> [samples]; NaN leaves the group out of a mean.
        sizes: members of each group; a group without members has no value.
    """
    groups, generator = len(statistics), np.random.default_rng(seed)
    values = np.full((1 + resamples, groups), np.nan)
    drawn = generator.integers(0, groups, (resamples, groups)) if groups else np.zeros((resamples, 0), np.int64)
    for number, (statistic, members) in enumerate(zip(statistics, sizes, strict=True)):
        if not members:
            continue
        values[0, number] = statistic(np.ones((1, members)))[0]
        sample, slot = np.nonzero(drawn == number)
        weights = generator.multinomial(members, np.full(members, 1.0 / members), size=len(sample)).astype(float)
        values[1 + sample, slot] = statistic(weights)
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    means = np.divide(
        np.where(defined, values, 0.0).sum(axis=1), count, out=np.full(len(values), np.nan), where=count > 0
    )
    interval = as_interval(interval_of(means))
    return interval if np.array(sizes)[defined[0]].sum() != 1 else [interval[0], None, None]


def as_interval(interval: Floats) -> Interval:
    """[3] as plain numbers; None three times for a value that is not there."""
    return [None] * 3 if np.isnan(interval[0]) else [float(end) for end in interval]


def never_certain(interval: Interval, trials: float, least: float) -> Interval:
    """Where all resamples agree, the interval that so many trials can give at best instead of a point.

    For 0 of n and n of n that is Wilson's (1927), z² / (n + z²) into the open side: drawing again from pictures that
    all say the same cannot show what the next one might say.

    Args:
        trials: n; 0 where what is measured is no count, or nothing was.
        least: the lowest value there can be; the highest is 1, or what was found.
    """
    value, low, high = interval
    if value is None or low != high or not trials:
        return interval
    low = high = value  # both ends, or none where one member is all there is
    reach = _Z2 / (trials + _Z2)
    return [value, max(least, low - reach), max(value, min(1.0, high + reach))]
