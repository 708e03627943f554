"""Pixels of a mask per grid cell: counted exactly, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.evidence.pooling import cell_areas, pool_mask, pool_masks


def test_a_mask_of_the_left_half_fills_the_left_cells() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:, :2] = True
    assert pool_mask(mask, (2, 2)).tolist() == [4, 0, 4, 0]


def test_three_pixels_over_two_cells_split_two_to_one() -> None:
    # floor(y * 2 / 3) is 0, 0, 1.
    assert pool_mask(np.ones((3, 1), bool), (2, 1)).tolist() == [2, 1]
    assert cell_areas((3, 5), (2, 2)).tolist() == [6, 4, 3, 2]


def test_more_cells_than_pixels_leaves_cells_empty() -> None:
    assert pool_mask(np.ones((1, 1), bool), (1, 3)).tolist() == [1, 0, 0]


@settings(max_examples=200, deadline=None)
@given(*(st.integers(1, 20) for _ in range(2)), *(st.integers(1, 9) for _ in range(2)), st.integers(0, 2**32 - 1))
def test_every_pixel_is_counted_in_the_cell_of_its_nearest_upsampling(
    height: int, width: int, h: int, w: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    expected = np.zeros((h, w), np.int64)
    for y in range(height):
        for x in range(width):
            expected[y * h // height, x * w // width] += mask[y, x]
    assert np.array_equal(pool_mask(mask, (h, w)), expected.ravel())
    assert np.array_equal(cell_areas((height, width), (h, w)), pool_mask(np.ones_like(mask), (h, w)))


def test_several_grids_at_once_equal_one_at_a_time() -> None:
    masks = np.random.default_rng(0).random((3, 48, 96)) < 0.3
    grids = [(8, 8), (16, 16), (4, 12), (5, 7)]
    for chosen in (grids[:3], grids):
        together = pool_masks(masks, chosen)
        for grid in chosen:
            assert all(np.array_equal(together[grid][i], pool_mask(masks[i], grid)) for i in range(3))


def test_a_mask_of_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="boolean"):
        pool_mask(np.ones((4, 4), np.uint8), (2, 2))
    with pytest.raises(InputError, match="at least one"):
        pool_mask(np.ones((4, 4), bool), (0, 2))
