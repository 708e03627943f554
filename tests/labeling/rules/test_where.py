"""The null among the pictures that show a concept: going with its pictures is not knowing where it is."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import NullConfig
from gazetteer.labeling.rules.tails import tail_bound, tail_bound_of_one
from gazetteer.labeling.rules.where import where_values

GRID, CELLS = 4, 16
SITE = Site("mid", "cond", 0.5)


def arrays(fires: np.ndarray, masks: np.ndarray) -> tuple[SiteCodes, ConceptMaps]:
    """Codes of bool [N, F, 16] and maps of int [N, C, 16] pixels, cells of 4 pixels."""
    ids = tuple(f"i{n:03d}" for n in range(len(fires)))
    image, feature, cell = (part.astype(np.int32) for part in np.nonzero(fires))
    codes = SiteCodes(SITE, ids, GRID, GRID, image, feature, cell, np.ones(len(image), np.float32))
    of, which = np.nonzero(masks.any(axis=2))
    names = tuple(f"c{n}" for n in range(masks.shape[1]))
    maps = ConceptMaps(
        ids, names, np.full(len(ids), "discovery"), np.full((len(ids), 2), 8), np.ones(masks.shape[:2], np.bool_),
        of, which, {(GRID, GRID): masks[of, which].astype(np.int32)},
    )  # fmt: skip
    return codes, maps


def test_lift_and_p_by_all_orders_of_few_pictures() -> None:
    """Five pictures have both, one block: p is the share of all 120 orders whose sum reaches the observed one."""
    rng = np.random.default_rng(3)
    fires, masks = rng.random((7, 1, CELLS)) < 0.3, 4 * (rng.random((7, 1, CELLS)) < 0.4)
    fires[5], masks[6] = False, 0
    lift, p = where_values(*arrays(fires, masks), np.array([0]), np.array([0]))
    a = fires[:5, 0] / fires[:5, 0].sum(axis=1, keepdims=True)
    each = a @ (masks[:5, 0] / 4).T
    sums = np.array([each[range(5), order].sum() for order in permutations(range(5))])
    assert lift[0] == pytest.approx(sums[0] / sums.mean())
    assert p[0] == pytest.approx((sums >= sums[0] - 1e-9).mean())


def company(rng: np.random.Generator, pictures: int, larger: bool) -> tuple[np.ndarray, np.ndarray]:
    """A sea below a horizon, and a feature at random cells of the same pictures, of more where the sea is larger."""
    masks = np.zeros((pictures, 1, CELLS), int)
    fires = np.zeros((pictures, 1, CELLS), bool)
    for i in range(pictures):
        masks[i, 0] = 4 * (np.arange(CELLS) >= GRID * rng.integers(1, GRID))
        fires[i, 0] = rng.random(CELLS) < (masks[i, 0].mean() / 5 if larger else 0.3)
    return fires, masks


@pytest.mark.parametrize("larger", [False, True])
def test_p_is_even_for_features_that_know_the_pictures_and_not_the_place(larger: bool) -> None:
    p = []
    for seed in range(150):
        data = company(np.random.default_rng(seed), 14, larger)
        p.append(where_values(*arrays(*data), np.array([0]), np.array([0]), config=NullConfig(permutations=300))[1][0])
    assert 0.3 < np.mean(np.array(p) <= 0.5) < 0.65
    assert np.mean(np.array(p) <= 0.05) <= 0.1


def test_what_follows_the_horizon_knows_where() -> None:
    rng = np.random.default_rng(0)
    fires, masks = company(rng, 24, False)
    fires = (masks > 0) & (rng.random(masks.shape) < 0.5)
    lift, p = where_values(*arrays(fires, masks), np.array([0]), np.array([0]))
    assert lift[0] > 1.1
    assert p[0] < 1e-4  # below what a thousand draws resolve
    wide = np.repeat(masks, 2, axis=1)
    again = where_values(*arrays(np.repeat(fires, 2, axis=1), wide), np.array([1, 0]), np.array([1, 0]))
    assert np.log10(again[1]) == pytest.approx([np.log10(p[0])] * 2, abs=0.8), "pairs in any order"


def test_a_pair_in_a_single_picture_says_nothing() -> None:
    fires, masks = np.ones((1, 1, CELLS), bool), np.full((1, 1, CELLS), 4)
    lift, p = where_values(*arrays(fires, masks), np.array([0]), np.array([0]))
    assert np.isnan(lift[0])
    assert p[0] == 1.0


def test_the_bound_is_never_below_the_exact_p() -> None:
    """Sums of four fair dice against all 1,296 outcomes, at every total; and with one die drawn four times."""
    faces = np.arange(1, 7.0)
    totals = np.add.outer(np.add.outer(faces, faces), np.add.outer(faces, faces)).ravel()
    wanted = np.arange(4.0, 25)
    exact = np.array([(totals >= one).mean() for one in wanted])
    apart = tail_bound([(np.broadcast_to(faces[:, None, None], (6, 4, len(wanted))), 1.0)], wanted)
    drawn = tail_bound([(np.broadcast_to(faces[:, None, None], (6, 1, len(wanted))), 4.0)], wanted)
    assert np.allclose(apart, drawn)
    assert (apart >= exact - 1e-12).all()
    assert (apart[wanted > 14] < 12 * exact[wanted > 14]).all()
    assert tail_bound([(np.ones((3, 2, 1)), 1.0)], np.array([2.0]))[0] == 1.0


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_of_one_sum_is_that_of_many_to_the_bit(seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [random.random((count, blocks)) for count, blocks in ((120, 1 + seed), (24, 40 - 5 * seed))]
    for share in (0.2, 0.5, 0.9, 1.0):
        observed = sum(float(np.quantile(part, share, axis=0).sum()) for part in parts)
        many = tail_bound([(part[:, :, None], 1.0) for part in parts], np.array([observed]))
        assert tail_bound_of_one(parts, observed) == many[0]
    assert tail_bound_of_one([np.ones((3, 2))], 2.0) == 1.0
