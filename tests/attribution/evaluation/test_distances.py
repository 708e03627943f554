"""Distances between pictures and sets of pictures, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.attribution.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    perceptual_distance,
    same_pictures,
)
from gazetteer.data.core.errors import InputError


def test_distances_between_pictures_and_between_sets_of_them() -> None:
    generator = np.random.default_rng(0)
    one = generator.normal(size=(400, 3))
    other = one * [1.0, 2.0, 1.0] + [3.0, 0.0, 0.0]
    # Along the axes the Fréchet distance is Σ (Δμ)² + Σ (Δσ)².
    expected = sum((one.mean(0) - other.mean(0)) ** 2) + one[:, 1].std(ddof=1) ** 2
    assert frechet_distance(one, other) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-8)
    apart, same = (kernel_distance(one, y)[0] for y in (other, generator.normal(size=(400, 3))))
    assert apart > 20 * abs(same)
    maps = [np.array([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=np.float32)]  # two cells, along x and along y
    turned = [maps[0][::-1] * 7]
    assert perceptual_distance(maps, [maps[0] * 5]) == pytest.approx(0)
    assert perceptual_distance(maps, turned) == pytest.approx(2)
    with pytest.raises(InputError, match="at least 2"):
        frechet_distance(one[:1], other)


@pytest.mark.parametrize("sizes", [(40, 30), (40, 4), (4, 3)])
def test_a_set_of_many_pictures_is_compared_by_its_channels(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix of pictures by pictures would be 7 GB for COCO-30k, and hours of work."""
    generator = np.random.default_rng(1)
    first, second = (generator.normal(size=(size, 6)) @ generator.normal(size=(6, 6)) for size in sizes)
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (first, second)]
    both = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    expected = apart + sum((x**2).sum() for x in centred) - 2 * both
    usual, largest = np.linalg.svd, list[int]()
    monkeypatch.setattr(np.linalg, "svd", lambda x, **more: largest.append(max(x.shape)) or usual(x, **more))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)
    assert max(largest) <= 6


def test_the_kernel_distance_of_pairs_by_hand() -> None:
    """One channel, k = (xy + 1)³."""
    # (1, 2) and (2, 1): k(1, 2) + k(2, 1) - k(1, 1) - k(2, 2) = 27 + 27 - 8 - 125.
    assert kernel_distance(np.array([[1.0], [2.0]]), np.array([[2.0], [1.0]]))[0] == pytest.approx(-79)
    # The last two pairs are of one intact picture, and against each other would give 260. With x = y = 0 on one side
    # every kernel is 1.
    intact, edited = np.array([[0.0], [1.0], [1.0]]), np.array([[0.0], [2.0], [3.0]])
    assert kernel_distance(intact, edited, resamples=50) == [0.0, 0.0, 0.0]
    # Against 1 -> 2: 2 -> 3 gives 27 + 343 - 64 - 125 = 181, 2 -> 1 gives -79 as above.
    found = kernel_distance(np.array([[1.0], [2.0], [2.0001]]), np.array([[2.0], [3.0], [1.0]]))
    assert found[0] == pytest.approx((181 - 79) / 2, abs=0.05)
    assert same_pictures(np.array([[1.0], [2.0], [2.0001], [1.0], [0.0]])).tolist() == [0, 1, 1, 0, 2]
    with pytest.raises(InputError, match="2 distinct"):
        kernel_distance(intact[1:], edited[1:])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 3), st.sampled_from([0.0, 0.1, 1.0]))
def test_the_interval_of_a_kernel_distance_holds_it_and_nothing_changed_is_nothing(
    seed: int, distinct: int, times: int, moved: float
) -> None:
    generator = np.random.default_rng(seed)
    intact = np.repeat(generator.normal(size=(distinct, 4)), times, axis=0)
    edited = intact + moved * generator.normal(size=intact.shape)
    value, low, high = kernel_distance(intact, edited, resamples=2 + 58 * (seed % 2), seed=seed)
    assert low <= value <= high
    order = generator.permutation(len(intact))
    assert kernel_distance(intact[order], edited[order])[0] == pytest.approx(value)
    if not moved:
        assert [value, low, high] == pytest.approx([0.0] * 3, abs=1e-9)


def test_a_kernel_distance_does_not_lean_to_either_side() -> None:
    """Both sides of one distribution: 0 on average, whether a picture lies near its pair or not."""
    generator = np.random.default_rng(0)
    for alike in (0.0, 0.9):
        found, with_pairs = [], []
        for _ in range(400):
            x, fresh = generator.normal(size=(2, 8, 5))
            y = alike * x + np.sqrt(1 - alike**2) * fresh
            found.append(kernel_distance(x, y)[0])
            across = (x @ y.T / 5 + 1) ** 3
            with_pairs.append(2 * ((across.sum() - np.trace(across)) / 56 - across.mean()))
        error = float(np.std(found) / 20)
        assert abs(np.mean(found)) < 3 * error
        assert (np.mean(found) + np.mean(with_pairs) < -3 * error) == (alike > 0)  # the mean over all k(x, y)
