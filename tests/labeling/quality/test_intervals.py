"""Bootstrap intervals: by hand, against scipy's, and against drawing the members one sample after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gazetteer.labeling.quality.intervals import (
    Floats,
    Statistic,
    bootstrap,
    fraction_interval,
    grouped_mean,
    interval_of,
    mean_interval,
    nested_bootstrap,
    never_certain,
    sample_weights,
)


def mean_of(x: Floats) -> Statistic:
    return lambda weights: weights @ x / weights.sum(axis=1)


def test_weights_are_the_sample_and_then_resamples_of_its_size() -> None:
    weights = sample_weights(7, 300)
    assert weights.shape == (301, 7) and (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all() and np.array_equal(weights, weights.round())
    assert abs(weights[1:].mean() - 1) < 1e-12 and weights[1:].var() == pytest.approx(6 / 7, rel=0.1)


def test_the_interval_of_a_mean_is_scipys() -> None:
    x = np.random.default_rng(0).gamma(1.0, size=60)
    value, low, high = bootstrap(mean_of(x), len(x), resamples=9000)
    theirs = stats.bootstrap((x,), np.mean, method="percentile", n_resamples=9000, rng=0).confidence_interval
    assert value == pytest.approx(x.mean())
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.01)


def test_several_values_at_once_are_each_alone() -> None:
    x = np.random.default_rng(1).normal(size=(20, 3))
    weights = sample_weights(20, 100)
    together = interval_of(weights @ x / 20)
    assert together.shape == (3, 3)
    for column in range(3):
        assert np.allclose(together[:, column], interval_of(weights @ x[:, column] / 20))


def test_quantiles_and_bias_by_hand() -> None:
    drawn = np.arange(41.0)  # quantiles at 1 and 39, mean 20
    assert interval_of(np.array([18.0, *drawn])).tolist() == [18.0, 1.0, 39.0]
    assert interval_of(np.array([18.0, *drawn]), moved=True).tolist() == [18.0, -1.0, 37.0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0], [2.0, 2.0, 2.0]),  # no resample
        ([2.0, np.nan, np.nan], [2.0, 2.0, 2.0]),  # none with a value
        ([np.nan, 1.0, 2.0], [np.nan] * 3),
        ([2.0, np.nan, 3.0, np.nan], [2.0, 3.0, 3.0]),
    ],
)
def test_what_is_missing(values: list[float], expected: list[float]) -> None:
    assert np.array_equal(interval_of(np.array(values)), np.array(expected), equal_nan=True)


def test_none_and_all_are_not_certain() -> None:
    """Wilson's interval of 0 of n ends at z^2 / (n + z^2), z = 1.96: .2775 for 10, .6576 for 2."""
    assert fraction_interval([0.0] * 10) == [0.0, 0.0, 0.2775]
    assert fraction_interval([1.0] * 10) == [1.0, 0.7225, 1.0]
    assert fraction_interval([0.0] * 10, ["a"] * 5 + ["b"] * 5) == [0.0, 0.0, 0.6576]  # two groups are two trials
    assert fraction_interval([]) == [None] * 3
    some = [1.0, 0.0, 0.0, 1.0, 0.0]
    assert fraction_interval(some) == pytest.approx(mean_interval(some), abs=1e-4)


def test_groups_are_drawn_whole() -> None:
    assert grouped_mean([1, 1, 0, 0], ["a", "a", "b", "b"], resamples=2000) == [0.5, 0.0, 1.0]
    assert grouped_mean([1.0] * 3, "abc", resamples=10) == [1.0] * 3
    assert grouped_mean([], [], resamples=10) == [None] * 3
    assert grouped_mean([0.9, 0.7, 0.8], ["a"] * 3, resamples=10) == [0.8, None, None], "one prompt, nothing of others"
    assert fraction_interval([1.0, 0.0], ["a", "a"])[0] == 0.5
    apart = grouped_mean([1, 1, 0, 0], [1, 2, 3, 4], resamples=4000)
    assert apart[1] == 0.0 and apart[2] == 1.0
    uneven = grouped_mean([1, 0, 0, 0], ["a", "b", "b", "b"], resamples=500)
    assert uneven[0] == 0.25  # a mean of pictures, not of groups


def test_weights_of_groups_are_those_of_their_members() -> None:
    apart = sample_weights(5, 40, 3)
    np.testing.assert_array_equal(sample_weights(5, 40, 3, groups=np.array([9, 2, 7, 1, 4])), apart)
    together = sample_weights(5, 40, 3, groups=np.array([7, 2, 7, 2, 7]))
    assert (together[:, 0] == together[:, 2]).all() and (together[:, 1] == together[:, 3]).all()
    np.testing.assert_array_equal(together[:, :2], sample_weights(2, 40, 3))


def test_a_mean_of_what_is_there() -> None:
    assert mean_interval([np.nan, 3.0, 3.0]) == [3.0, 3.0, 3.0]
    assert mean_interval([np.nan]) == mean_interval([]) == [None] * 3
    assert mean_interval([np.nan, 0.31]) == [0.31, None, None]


def literal(tables: list[Floats], read: Callable[[Floats], float], resamples: int, seed: int) -> list[float]:
    """The definition of `nested_bootstrap`, one draw after the other."""
    generator, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        some = [tables[i] for i in generator.integers(0, len(tables), len(tables))]
        drawn = [read(table[generator.integers(0, len(table), len(table))]) for table in some if len(table)]
        draws.append(np.nanmean(drawn) if len(drawn) and not np.isnan(drawn).all() else np.nan)
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return [float(np.nanmean([read(table) for table in tables if len(table)])), float(low), float(high)]


def test_members_within_drawn_groups_are_drawn_anew_for_every_group() -> None:
    generator = np.random.default_rng(3)
    tables = [
        generator.binomial(1, fraction, size).astype(float)
        for fraction, size in ((0.2, 9), (0.7, 30), (0.9, 4), (0.5, 0))
    ]
    found = nested_bootstrap([mean_of(table) for table in tables], [len(t) for t in tables], resamples=8000)
    slow = literal(tables, lambda table: float(table.mean()), 8000, 1)
    assert found[0] == pytest.approx(slow[0])
    assert found[1:] == pytest.approx(slow[1:], abs=0.02)


def test_nested_means_leave_out_what_has_no_value() -> None:
    def never(weights: Floats) -> Floats:
        return np.full(len(weights), np.nan)

    ones = mean_of(np.ones(3))
    assert nested_bootstrap([never, ones], [2, 3], resamples=200) == [1.0, 1.0, 1.0]
    assert nested_bootstrap([never], [2], resamples=20) == nested_bootstrap([], [], resamples=20) == [None] * 3
    assert nested_bootstrap([ones], [3], resamples=0) == [1.0, 1.0, 1.0]


def test_one_member_of_one_group_says_nothing_of_others() -> None:
    def never(weights: Floats) -> Floats:
        return np.full(len(weights), np.nan)

    half = mean_of(np.array([0.5]))
    assert nested_bootstrap([half], [1], resamples=20) == [0.5, None, None]
    assert nested_bootstrap([half, never, half], [1, 3, 0], resamples=20) == [0.5, None, None]
    assert nested_bootstrap([half, half], [1, 1], resamples=20) == [0.5, 0.5, 0.5]
    assert never_certain([0.0, None, None], 1.0, 0.0) == pytest.approx([0.0, 0.0, 0.7935], abs=1e-4)  # Wilson's
    assert never_certain([0.5, None, None], 0.0, 0.0) == [0.5, None, None]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.integers(0, 3))
def test_a_mean_lies_within_its_members(values: list[float], seed: int) -> None:
    value, low, high = mean_interval(values, resamples=50, seed=seed)
    assert low is not None and high is not None
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9 and value == pytest.approx(np.mean(values))
