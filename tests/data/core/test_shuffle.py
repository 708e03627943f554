"""A shuffle that takes no memory: every number once an epoch, any step entered directly."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.data.core.shuffle import permuted, shuffled_indices


def test_the_seed_decides_the_order():
    first, same, other = (np.concatenate(list(shuffled_indices(100, 10, seed, epochs=2))) for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()
    assert (first[:100] != first[100:]).any()
    assert sorted(first[100:]) == list(range(100))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 9))
def test_a_permutation_holds_every_number_once(count: int, seed: int, epoch: int):
    whole = permuted(np.arange(count), count, seed, epoch)
    assert sorted(whole) == list(range(count))
    some = np.arange(0, count, 3)
    assert (permuted(some, count, seed, epoch) == whole[some]).all()


def test_all_orders_come_up_about_equally_often():
    # 24 orders of four numbers in 4800 draws: 200 each, and a deviation of 60 is more than four sigmas.
    orders = Counter(tuple(permuted(np.arange(4), 4, seed, epoch)) for seed in range(80) for epoch in range(60))
    assert len(orders) == 24
    assert 140 < min(orders.values()) <= max(orders.values()) < 260


def test_neighbours_go_their_own_ways():
    count = 20_000
    order = permuted(np.arange(count), count, 1, 0)
    assert abs(np.corrcoef(np.arange(count), order)[0, 1]) < 0.03
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03


def test_a_shuffle_takes_no_memory_for_its_order():
    # A table of the order of so many vectors would take 8 TB.
    batches = list(itertools.islice(shuffled_indices(10**12, 4096, seed=0, start_step=200_000_000), 2))
    assert len(np.unique(np.concatenate(batches))) == 8192


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 12), st.integers(0, 5))
def test_a_step_does_not_depend_on_where_the_stream_was_entered(count: int, batch: int, start: int, seed: int):
    whole = itertools.islice(shuffled_indices(count, batch, seed), start, start + 4)
    entered = itertools.islice(shuffled_indices(count, batch, seed, start_step=start), 4)
    for expected, found in zip(whole, entered, strict=True):
        assert len(expected) == batch
        assert (expected == found).all()


def test_batches_may_span_epochs_and_the_last_incomplete_one_is_left_out():
    batches = list(shuffled_indices(10, 4, seed=0, epochs=3))
    assert [len(batch) for batch in batches] == [4] * 7
    counts = np.bincount(np.concatenate(batches), minlength=10)
    assert counts.min() >= 2
    assert counts.max() == 3
    assert len(next(shuffled_indices(3, 8, seed=0))) == 8
