"""IoU at a threshold of the feature's own: by hand, by the literal definition, and the support as its limit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.concept_maps import read_concepts
from gazetteer.labeling.evidence.counts import ImageEvidenceInput
from gazetteer.labeling.evidence.site_codes import codes_by_site
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.top_quantile import best_top_quantile
from tests.support.runs.small_world import MID, World, map_code
from tests.support.runs.strategies import SITES, small_runs

SIZE = (4, 4)
TOP = np.repeat([True, False], 8).reshape(SIZE)


def upsampled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest upsampling as the tables define it: pixel y belongs to row floor(y h / H)."""
    h, w = values.shape
    return values[np.arange(size[0]) * h // size[0]][:, np.arange(size[1]) * w // size[1]]


def dense(one: ImageEvidenceInput, site: Site, feature: int) -> np.ndarray:
    """The feature's map over the pixels of the picture."""
    code = one.codes[site]
    values = np.where(code.feature == feature, code.value, 0).astype(np.float64)
    return upsampled(values.reshape(code.height, code.width, -1).sum(-1), one.size)


def literal(world: World, site: Site, split: str, feature: int, concept: str, limit: float) -> float:
    """IoU above `limit`, picture by picture and pixel by pixel."""
    both = either = 0
    for one in world.inputs:
        masks = [mask for name, mask in one.segments if name == concept]
        if one.split != split or site not in one.codes or not (concept in one.asked or masks):
            continue
        shown = np.any([*masks, np.zeros(one.size, bool)], axis=0)
        values = dense(one, site, feature)
        fires = (values >= limit) & (values > 0)
        both += int((fires & shown).sum())
        either += int((fires | shown).sum())
    return both / either if either else math.nan


def active(world: World, site: Site, feature: int) -> list[float]:
    """The feature's activations in discovery images, cell by cell, largest first."""
    found: list[float] = []
    for one in world.inputs:
        if one.split == "discovery" and site in one.codes:
            code = one.codes[site]
            found += [float(v) for v in code.value[(code.feature == feature) & (code.value > 0)]]
    return sorted(found, reverse=True)


def same(found: float | None, expected: float | None) -> bool:
    """Equal up to rounding, where null and NaN both mean undefined."""
    if expected is None or math.isnan(expected):
        return found is None
    return found == pytest.approx(expected)


def test_the_threshold_that_fits_is_found_in_discovery_and_used_in_heldout_pictures() -> None:
    # The upper half is the sky; the feature fires there at 4 and 3, below at 2 and, held out, once at 3.
    learnt = map_code({1: np.array([[4.0, 3.0], [2.0, 0.0]])})
    unseen = map_code({1: np.array([[4.0, 2.0], [3.0, 2.0]])})
    world = World(
        [
            ImageEvidenceInput("a", "discovery", SIZE, ("sky",), [("sky", TOP)], {MID: learnt}),
            ImageEvidenceInput("b", "heldout", SIZE, ("sky",), [("sky", TOP)], {MID: unseen}),
        ],
        ("sky",),
    )
    row = world.reduce({MID: 2})["candidates"].to_pylist()[0]
    # The two largest of three, ceil(0.6 * 3), are the sky; held out, 4 and 3 meet it in one cell of three.
    assert (row["top_share"], row["top_threshold"], row["top_iou"]) == (0.6, 3.0, 1.0)
    assert row["heldout_top_iou"] == pytest.approx(1 / 3)
    assert (row["dataset_iou"], row["heldout_dataset_iou"]) == (pytest.approx(2 / 3), pytest.approx(1 / 2))


@settings(max_examples=60, deadline=None)
@given(small_runs())
def test_every_pair_has_the_best_share_by_the_literal_definition(run: tuple[list, tuple[str, ...]]) -> None:
    inputs, base = run
    world, fractions = World(inputs, base), (0.75, 0.5, 0.25)
    counts = dict.fromkeys(SITES, 3)
    for row in world.reduce(counts, config=LabelConfig(top_shares=fractions))["candidates"].to_pylist():
        site = next(
            s for s in SITES if (s.block, s.branch) == (row["block"], row["branch"]) and abs(s.t - row["t"]) < 1e-6
        )
        values = active(world, site, row["feature"])
        limits = {1.0: 0.0} | {s: values[math.ceil(s * len(values)) - 1] for s in fractions}
        ious = {s: literal(world, site, "discovery", row["feature"], row["concept"], limits[s]) for s in limits}
        best = max(limits, key=lambda s: (np.nan_to_num(ious[s]), s))
        assert (row["top_share"], row["top_threshold"]) == (best, limits[best])
        assert same(row["top_iou"], ious[best])
        held = literal(world, site, "heldout", row["feature"], row["concept"], limits[best])
        assert same(row["heldout_top_iou"], held)


@settings(max_examples=40, deadline=None)
@given(small_runs())
def test_without_shares_it_is_the_iou_of_the_support(run: tuple[list, tuple[str, ...]]) -> None:
    inputs, base = run
    counts = dict.fromkeys(SITES, 3)
    for row in World(inputs, base).reduce(counts, config=LabelConfig(top_shares=()))["candidates"].to_pylist():
        assert (row["top_share"], row["top_threshold"]) == (1.0, 0.0)
        assert same(row["top_iou"], row["dataset_iou"])
        assert same(row["heldout_top_iou"], row["heldout_dataset_iou"])


def test_features_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    maps: dict[int, np.ndarray] = {f: rng.random((4, 4)) * (rng.random((4, 4)) < 0.6) for f in range(7)}
    world = World(
        [
            ImageEvidenceInput(
                "a", "discovery", (8, 8), ("sky",), [("sky", np.tri(8, dtype=bool))], {MID: map_code(maps)}
            )
        ]
    )
    codes, concepts = codes_by_site(world.codes)[MID], read_concepts(world.images, world.segments, [(4, 4)])
    pairs = np.arange(7), np.zeros(7, np.int64)
    whole = best_top_quantile(codes, concepts, *pairs, (0.5,))
    monkeypatch.setattr("gazetteer.labeling.rules.top_quantile._ENTRIES", 4)
    for once, parts in zip(whole, best_top_quantile(codes, concepts, *pairs, (0.5,)), strict=True):
        np.testing.assert_array_equal(once, parts)


@pytest.mark.parametrize("fractions", [(0.0,), (1.0,), (0.5, 1.5)])
def test_shares_out_of_range_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="top_shares"):
        LabelConfig(top_shares=fractions)


def test_there_may_be_many_shares() -> None:
    maps: dict[int, np.ndarray] = {0: np.arange(1.0, 17.0).reshape(4, 4)}
    mask = np.kron(np.arange(16).reshape(4, 4) >= 8, np.ones((2, 2))).astype(bool)
    world = World([ImageEvidenceInput("a", "discovery", (8, 8), ("sky",), [("sky", mask)], {MID: map_code(maps)})])
    codes, concepts = codes_by_site(world.codes)[MID], read_concepts(world.images, world.segments, [(4, 4)])
    shares = tuple(np.linspace(0.999, 0.001, 300).tolist())
    few, many = (
        best_top_quantile(codes, concepts, np.zeros(1, np.int64), np.zeros(1, np.int64), s) for s in ((0.5,), shares)
    )
    assert few[2] == many[2] == [1.0]  # the upper half of the cells is the sky
