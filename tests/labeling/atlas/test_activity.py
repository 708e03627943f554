"""How a feature fires, counted by hand on a grid of two cells and four pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.core.sites import Site
from gazetteer.labeling.atlas.activity import BINS, PARTNERS, activity_of
from gazetteer.labeling.evidence.site_codes import SiteCodes, flat_codes

SITE = Site("mid", "cond", 0.5)


def codes(maps: dict[str, list[dict[int, float]]]) -> SiteCodes:
    """From images to cells to the features that fire there."""
    k = max(len(cell) for cells in maps.values() for cell in cells)
    slots = [[*cell.items(), *[(0, 0.0)] * (k - len(cell))] for cells in maps.values() for cell in cells]
    feature = np.array([f for cell in slots for f, _ in cell])
    value = np.array([v for cell in slots for _, v in cell], np.float32)
    cells = len(next(iter(maps.values())))
    return flat_codes(SITE, list(maps), (1, cells), feature, value, np.full(len(maps), cells * k, np.int64))


FOUR = {
    "a": [{1: 4.0, 2: 1.0}, {1: 2.0}],
    "b": [{1: 3.0, 2: 1.0}, {}],
    "c": [{1: 1.0, 2: 1.0}, {2: 1.0}],
    "d": [{1: 0.5, 2: 1.0}, {3: 1.0}],
}


def test_a_histogram_counts_every_active_cell_up_to_the_peak() -> None:
    found = activity_of(codes(FOUR), FOUR, {})
    one = found.histograms[1]
    assert one.sum() == 5
    assert {int(i): int(one[i]) for i in np.flatnonzero(one)} == {23: 1, 18: 1, 12: 1, 6: 1, 3: 1}
    assert found.histograms[2][BINS - 1] == 5
    assert set(found.histograms) == {1, 2, 3}


def test_examples_are_the_pictures_nearest_to_the_quantiles() -> None:
    found = activity_of(codes(FOUR), FOUR, {}).examples[1]
    assert [one[1:] for one in found] == [("a", 4.0, 0), ("b", 3.0, 0), ("c", 1.0, 0), ("d", 0.5, 0)]
    assert [one[0] for one in found] == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_examples_leave_out_what_is_shown_already_and_what_may_not_be_shown() -> None:
    found = activity_of(codes(FOUR), {"a", "b", "c"}, {1: ["a"]}).examples[1]
    assert [one[1] for one in found] == ["b", "c"]
    assert activity_of(codes(FOUR), {"d"}, {1: ["d"]}).examples[1] == []


def test_partners_share_cells() -> None:
    """1 fires in five cells, 2 in five, both in four: 4 / 6. 3 fires alone."""
    found = activity_of(codes(FOUR), FOUR, {})
    assert found.partners == {1: [(2, pytest.approx(4 / 6))], 2: [(1, pytest.approx(4 / 6))], 3: []}
    assert found.sampled == 1.0


def test_alike_are_those_whose_vectors_point_the_same_way() -> None:
    decoder = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    found = activity_of(codes(FOUR), FOUR, {}, decoder).alike
    assert found[1][0] == (2, pytest.approx(1.0))
    assert found[3] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert set(found) == {1, 2, 3}


def test_nothing_fires_nothing_is_said() -> None:
    found = activity_of(codes({"a": [{1: 0.0}]}), ["a"], {}, np.eye(3))
    assert (found.histograms, found.examples, found.partners, found.alike) == ({}, {}, {}, {})


@given(
    st.lists(st.dictionaries(st.integers(0, 6), st.floats(0.125, 8.0, width=16), min_size=1), min_size=1, max_size=12)
)
def test_partnership_is_mutual_and_no_cell_is_lost(cells: list[dict[int, float]]) -> None:
    found = activity_of(codes({"a": cells}), ["a"], {})
    assert sum(int(one.sum()) for one in found.histograms.values()) == sum(len(cell) for cell in cells)
    for feature, others in found.partners.items():
        for other, fraction in others:
            assert 0 < fraction <= 1
            back = dict(found.partners[other])
            assert len(back) == PARTNERS or back[feature] == pytest.approx(fraction)
