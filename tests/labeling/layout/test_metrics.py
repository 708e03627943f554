"""What a predicted layout is measured by, against values by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.labeling.evidence.concept_maps import read_concepts
from gazetteer.labeling.evidence.pooling import cell_edges
from gazetteer.labeling.layout.calibration import on_grid
from gazetteer.labeling.layout.evaluation.evaluate import _shown
from gazetteer.labeling.layout.metrics import (
    Truth,
    average_precision,
    best_threshold,
    concept_means,
    fit_thresholds,
    macro_mean,
    pair_ious,
    pair_pointing,
)
from gazetteer.labeling.layout.run import truth_of
from gazetteer.labeling.quality.intervals import sample_weights


def truth_of_one(pixels: list[list[int]], **flags: object) -> Truth:
    """Pictures of one concept on as many cells of 10 pixels as given."""
    array = np.array(pixels, np.int32)[:, None]
    known = np.ones(array.shape[:2], bool)
    return Truth(array, np.full(array.shape[2], 10.0), known & array.any(axis=2), known)


def test_iou_pointing_and_chance_by_hand() -> None:
    truth = truth_of_one([[10, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    scores = np.array([[3, 2, 1, 0], [1, 1, 1, 1], [2, 0, 0, 2]], np.float32)[:, :, None]
    ious = pair_ious(scores, truth, np.array([2.0], np.float32))[:, 0]
    assert ious[0] == 15 / 20 and np.isnan(ious[1]) and ious[2] == 4 / 20
    pointing = pair_pointing(scores, truth)[:, 0]
    assert pointing[0] == 1.0 and np.isnan(pointing[1]) and pointing[2] == pytest.approx(0.2)  # two tied cells
    everything = pair_ious(np.zeros_like(scores), truth, np.zeros(1, np.float32))[:, 0]
    assert everything[0] == 15 / 40  # marking all gives the mask's share


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (5, 9)).astype(np.float32)
    truth = truth_of_one(rng.integers(0, 11, (5, 9)).tolist())
    found = best_threshold(scores, truth.pixels[:, 0], truth.areas)
    means = {cut: np.nanmean(pair_ious(scores[:, :, None], truth, np.float32([cut]))) for cut in range(6)}
    assert means[found] == pytest.approx(max(means.values()))


def test_average_precision_by_hand_and_its_chance_level() -> None:
    truth = truth_of_one([[1], [0], [1], [0]])
    one = sample_weights(4, 1)[:1]
    assert average_precision(np.array([[4], [3], [2], [1]], np.float32), truth, one)[0] == (1 + 2 / 3) / 2
    assert average_precision(np.ones((4, 1), np.float32), truth, one)[0] == 0.5  # all tied: the prevalence


def test_the_interval_of_a_precision_ends_where_precisions_do() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        peaks = rng.random((6, 1)).astype(np.float32)
        value, low, high = average_precision(peaks, truth_of_one([[1], [1], [0], [0], [1], [0]]), sample_weights(6))
        assert 0.0 <= low <= value <= high <= 1.0  # moved by its bias alone, one of these ends beyond


def test_intervals_cover_and_shrink_with_the_number_of_pictures() -> None:
    rng = np.random.default_rng(0)
    widths, covered = {}, 0
    for images in (25, 400):
        for _ in range(40):
            mean, low, high = macro_mean(rng.random((images, 2)), sample_weights(images, 200))
            assert low <= mean <= high
            covered += low <= 0.5 <= high
        widths[images] = high - low
    assert covered >= 68 and widths[400] < widths[25] / 2.5


def test_the_mean_of_every_concept_has_its_own_interval() -> None:
    values = np.array([[0.2, np.nan, 1.0], [0.4, np.nan, 1.0]])
    one, none, sure = concept_means(values, np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
    assert one == pytest.approx((0.3, 0.205, 0.395)) and sure == (1.0, 1.0, 1.0) and np.isnan(none).all()


def test_one_prompt_says_nothing_of_others() -> None:
    values = np.array([[0.2, 0.4], [0.6, np.nan], [np.nan, np.nan]])
    truth = truth_of_one([[1], [0], [1]])
    peaks = np.array([[3], [2], [1]], np.float32)

    def ends(groups: list[int]) -> list[bool]:
        own = np.array(groups)
        weights = sample_weights(3, 50, groups=own)
        figures = [macro_mean(values, weights, own), *concept_means(values, weights, own)]
        figures.append(average_precision(peaks, truth, weights, own))
        assert not np.isnan([value for value, _, _ in figures]).any()
        assert all(np.isnan(low) == np.isnan(high) for _, low, high in figures)
        return [not np.isnan(low) for _, low, _ in figures]

    assert ends([0, 1, 2]) == [True, True, False, True]  # of the second concept there is one picture
    assert ends([0, 0, 1]) == [False, False, False, True] and ends([0, 0, 0]) == [False] * 4
    assert [_shown(interval) for interval in ([0.5, np.nan, np.nan], [np.nan] * 3)] == ["0.500", None]


def test_rare_concepts_take_the_common_threshold() -> None:
    scores = np.random.default_rng(0).random((9, 4, 2)).astype(np.float32)
    pixels = (scores.transpose(0, 2, 1) > np.array([0.3, 0.7])[:, None]).astype(np.int32) * 10
    pixels[:, 0, 0], pixels[1:, 1] = 10, 0
    wanted = pixels.any(axis=2)
    found = fit_thresholds(scores, Truth(pixels, np.full(4, 10.0), wanted, np.ones_like(wanted)))
    everything = np.concatenate([scores[:, :, 0], scores[:1, :, 1]])
    masks = np.concatenate([pixels[:, 0], pixels[:1, 1]])
    assert found[1] == np.float32(best_threshold(everything, masks, np.full(4, 10.0)))


def test_cells_that_are_joined_come_to_their_mean() -> None:
    maps = np.arange(15, dtype=np.float32).reshape(1, 15, 1)
    assert on_grid(maps, (3, 5), (1, 1)).tolist() == [[[7.0]]] and on_grid(maps, (3, 5), (3, 5)) is maps
    # Row 1 of 3 belongs to the first of 2, columns 1 and 2 of 5 to the first: as pixels to cells.
    rows, columns = cell_edges(3, 2), cell_edges(5, 2)
    wide = maps.reshape(3, 5)
    by_hand = [[wide[rows[r] : rows[r + 1], columns[c] : columns[c + 1]].mean() for c in (0, 1)] for r in (0, 1)]
    assert on_grid(maps, (3, 5), (2, 2)).reshape(2, 2).tolist() == by_hand
    tall = on_grid(maps[:, :4], (1, 4), (2, 2)).reshape(2, 2)  # cut one way, joined the other
    assert tall.tolist() == [[0.5, 2.5]] * 2 and tall.dtype == np.float32


def test_enlarging_is_nearest_neighbour() -> None:
    assert on_grid(np.arange(4)[None], (2, 2), (4, 4)).reshape(4, 4).tolist() == [
        [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]
    ]  # fmt: skip


@pytest.mark.parametrize("sizes", [[(16, 16), (16, 16)], [(8, 8), (32, 32)], [(10, 10), (9, 13)]])
def test_a_perfect_prediction_is_perfect_whatever_the_sizes_of_pictures(sizes: list[tuple[int, int]]) -> None:
    """The left half of every picture, on 4 x 4 cells."""
    grid, shown, segments = (4, 4), [], []
    for number, (height, width) in enumerate(sizes):
        mask = np.zeros((height, width), bool)
        mask[:, : cell_edges(width, 4)[2]] = True
        of_picture = {"image_id": str(number), "prompt": "a dog", "seed": 0, "split": "heldout", "asked": ["dog"]}
        shown.append({**of_picture, "height": height, "width": width})
        segments.append({"image_id": str(number), "concept": "dog", "score": 1.0, "mask": mask_to_struct(mask)})
    maps = read_concepts(pa.Table.from_pylist(shown), pa.Table.from_pylist(segments), [grid])
    pixels, every = float(maps.sizes.prod(axis=1).mean()), np.arange(len(sizes))
    truth = truth_of(maps, np.ones((len(sizes), 1), bool), grid, pixels, every)
    scores = np.zeros((len(sizes), *grid, 1), np.float32)
    scores[:, :, :2] = 1.0
    scores = scores.reshape(len(sizes), 16, 1)
    assert pair_ious(scores, truth, np.array([0.5], np.float32)).ravel() == pytest.approx([1.0, 1.0])
    assert pair_pointing(scores, truth).ravel() == pytest.approx([1.0, 1.0])
