"""The location-preserving null: shared places alone must not make a label."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import kstest

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, read_concepts
from gazetteer.labeling.evidence.site_codes import SiteCodes, codes_by_site
from gazetteer.labeling.evidence.view import views
from gazetteer.labeling.rules.blocks import Blocks, block_sums
from gazetteer.labeling.rules.config import NullConfig
from gazetteer.labeling.rules.null import exceedances, p_values
from gazetteer.labeling.rules.significance import pair_tests, significance
from tests.labeling.rules.test_kinds import arrays as flat_arrays
from tests.support.runs.small_world import FOLLOWS, MERELY_TOP, MID, World, sky_world


def arrays(world: World) -> tuple[SiteCodes, ConceptMaps]:
    codes = codes_by_site(world.codes)
    return codes[MID], read_concepts(world.images, world.segments, [(8, 8)])


def dense(world: World, feature: int, concept: str) -> tuple[np.ndarray, np.ndarray]:
    """Supports bool [N, 64] and pixels int [N, 64] of the discovery images."""
    codes, maps = arrays(world)
    support = np.zeros((len(codes.image_ids), codes.cells), np.int64)
    mine = codes.feature == feature
    support[codes.image[mine], codes.cell[mine]] = 1
    pixels = np.zeros_like(support)
    used = maps.union_concept == maps.concepts.index(concept)
    pixels[maps.union_image[used]] = maps.pixels[8, 8][used]
    chosen = maps.splits == "discovery"
    return support[chosen], pixels[chosen]


def test_block_sums_are_the_sums_of_shifted_images() -> None:
    rng = np.random.default_rng(0)
    support = rng.random((9, 3, 4)) < 0.4  # [images, features, cells]
    pixels = rng.integers(0, 9, (9, 2, 4)).astype(np.int32)
    image, feature, cell = np.nonzero(support)
    row, column = (a.ravel() for a in np.indices((3, 2)))
    blocks = Blocks.of(rng.permutation(9), 5)
    assert blocks.sizes.tolist() == [5, 4]
    maps = sp.csr_array(pixels.transpose(0, 2, 1).reshape(36, 2))
    sums = block_sums((feature, image, cell), maps, 4, blocks, row, column)
    for first, size in zip(blocks.firsts, blocks.sizes, strict=True):
        mine = blocks.images[first : first + size]
        for shift in range(size):
            shifted = np.roll(pixels[mine], -shift, axis=0)
            expected = np.einsum("ifp,icp->fc", support[mine].astype(int), shifted)
            assert np.array_equal(sums[first + shift], expected.ravel())


def test_sums_that_do_not_fit_32_bits_stay_exact() -> None:
    maps = sp.csr_array(np.full((3, 1), 2**31 + 1))
    ones = np.zeros(3, np.int64)
    sums = block_sums((ones, np.arange(3), ones), maps, 1, Blocks.of(np.arange(3), 3), ones[:1], ones[:1])
    assert sums.ravel().tolist() == [3 * (2**31 + 1)] * 3


def test_the_expected_intersection_is_the_mean_over_all_pairs_of_images() -> None:
    world = sky_world(40)
    found = views(world.evidence)[MID]["discovery"]
    for number, expected in enumerate(found.expected_intersection()):
        support, pixels = dense(world, int(found.features[found.row[number]]), found.concepts[found.concept[number]])
        assert expected == pytest.approx((support @ pixels.T).sum() / len(support))


def test_p_agrees_with_naive_permutations() -> None:
    world = sky_world(80, seed=5)
    codes, maps = arrays(world)
    rng = np.random.default_rng(1)
    feature, concept = (a.ravel() for a in np.indices((3, 2)))
    p = p_values(codes, maps, feature, concept, config=NullConfig(permutations=4000, refine=0, orders=8))
    for number in range(len(p)):
        support, pixels = dense(world, int(feature[number]), maps.concepts[concept[number]])
        observed = (support * pixels).sum()
        drawn = np.array([(support * pixels[rng.permutation(len(pixels))]).sum() for _ in range(2000)])
        naive = (1 + (drawn >= observed).sum()) / 2001
        assert p[number] == pytest.approx(naive, abs=0.06)


@pytest.mark.parametrize("large", [1, 2**40])
def test_exceedances_are_those_of_the_permutations_one_by_one(large: int) -> None:
    random = np.random.default_rng(3)
    blocks = Blocks.of(np.arange(50), 16)
    sums = random.integers(0, 9, (50, 70)) * large
    observed = sums[blocks.firsts].sum(axis=0)
    counted = exceedances(sums, blocks, observed, 3000, np.random.default_rng(5))
    drawn = np.random.default_rng(5)
    shifts = np.stack([drawn.integers(0, size, 3000) for size in blocks.sizes], axis=1)
    totals = np.stack([sums[blocks.firsts + shift].sum(axis=0) for shift in shifts])
    assert np.array_equal(counted, (totals >= observed).sum(axis=0))


def test_being_at_the_top_like_the_sky_is_not_meaning_sky() -> None:
    world = sky_world()
    found = views(world.evidence)[MID]["discovery"]
    pairs = zip(found.features[found.row], (found.concepts[c] for c in found.concept), strict=True)
    lift = dict(zip(pairs, found.intersection / found.expected_intersection(), strict=True))
    codes, maps = arrays(world)
    rows = significance(MID, pair_tests(codes, maps), maps.concepts).to_pylist()
    q = {(row["feature"], row["concept"]): row["q_value"] for row in rows}
    assert lift[FOLLOWS, "sky"] > 1.7
    assert q[FOLLOWS, "sky"] < 0.01
    assert lift[MERELY_TOP, "sky"] == pytest.approx(1.0, abs=0.2)
    assert q[MERELY_TOP, "sky"] > 0.1


def test_p_is_uniform_when_feature_and_concept_are_independent() -> None:
    # One p a world: pairs of one world share images and are not independent.
    p = []
    for seed in range(120):
        codes, maps = arrays(sky_world(40, seed=seed, size=16))
        config = NullConfig(permutations=200, refine=400)
        p.append(p_values(codes, maps, np.array([MERELY_TOP]), np.array([1]), config=config)[0])
    assert kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p) <= 0.05) <= 0.11


def test_only_small_p_are_refined_and_resolution_follows() -> None:
    codes, maps = arrays(sky_world())
    pair = np.array([FOLLOWS, MERELY_TOP]), np.array([1, 1])
    coarse = p_values(codes, maps, *pair, config=NullConfig(refine=0))
    fine = p_values(codes, maps, *pair, config=NullConfig(refine=9000))
    assert coarse[0] == fine[0] < 1e-6  # what permutations cannot resolve is bounded, so p has no floor
    assert fine[1] == coarse[1]


def test_with_few_images_the_smallest_p_is_not_overstated() -> None:
    # Four images are two blocks of two: four shuffles, one of which is the identity.
    codes, maps = arrays(World(sky_world(8, seed=2).inputs[:4]))
    p = p_values(codes, maps, np.array([FOLLOWS]), np.array([maps.concepts.index("ball")]))
    assert p[0] > 0.15


def test_the_order_of_the_rows_and_portions_of_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = sky_world(30)
    codes, maps = arrays(world)
    feature, concept = (a.ravel() for a in np.indices((4, 2)))
    p = p_values(codes, maps, feature, concept)
    again = p_values(*arrays(World(world.inputs[::-1])), feature[::-1], concept[::-1])
    assert np.array_equal(p, again[::-1])
    monkeypatch.setattr("gazetteer.labeling.rules.null._SUMS", 1)
    assert np.array_equal(p, p_values(codes, maps, feature, concept))


def test_beyond_the_pictures_that_are_shuffled_no_rare_pair_is_lost() -> None:
    """Of 300 pictures 120 are shuffled; concept 0 and feature 0, always at the same places, are in 12 of all."""
    rng = np.random.default_rng(0)
    values, masks = np.zeros((2, 300, 2, 16))
    rare = rng.choice(300, 12, replace=False)
    at = rng.integers(0, 16, 12)
    values[rare, 0, at], masks[rare, 0, at] = 1.0, 4
    values[np.arange(300), 1, rng.integers(0, 16, 300)] = 1.0
    masks[np.arange(300), 1, rng.integers(0, 16, 300)] = 4
    codes, maps = flat_arrays(values, masks.astype(np.int64))
    pairs = np.array([0, 1])
    whole, cut = (p_values(codes, maps, pairs, pairs, config=NullConfig(max_images=most)) for most in (4096, 120))
    assert cut[0] == whole[0] < 1e-6
    assert cut[1] != whole[1]  # what is in many pictures is judged by some of them
    few = ConceptMaps(**{**vars(maps), "splits": np.where(np.isin(np.arange(300), rare[:2]), "heldout", maps.splits)})
    assert p_values(codes, few, pairs, pairs)[0] > whole[0]  # fewer of the rare ones say less


def test_codes_of_an_unknown_image_are_refused() -> None:
    codes, _ = arrays(sky_world(6))
    _, maps = arrays(World(sky_world(6).inputs[1:]))
    with pytest.raises(InputError, match="i0000"):
        p_values(codes, maps, np.array([0]), np.array([0]))
