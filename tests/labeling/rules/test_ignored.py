"""Cells of given pictures that nobody decided on: left out where pictures are counted, kept where they are shuffled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.given.picture import GivenPicture
from gazetteer.data.tables.codes import SparseMap
from gazetteer.diffusion.generate import Picture
from gazetteer.labeling.atlas.maps import pack
from gazetteer.labeling.evidence.concept_maps import read_concepts
from gazetteer.labeling.evidence.counts import ImageEvidenceInput
from gazetteer.labeling.evidence.site_codes import SiteCodes, codes_by_site, flat_codes, join_codes
from gazetteer.labeling.interventions.contrast import concept_contrasts
from gazetteer.labeling.layout.own_counts import own_counts
from gazetteer.labeling.layout.run import LayoutRun, open_run
from gazetteer.labeling.pipeline import given as stage
from gazetteer.labeling.pipeline.given import given_pictures, with_ignored
from gazetteer.labeling.quality.shuffle_check import shuffled_label_counts
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.explained import explain
from gazetteer.labeling.rules.labels import NULLS, make_pairs
from gazetteer.labeling.rules.meetings import meetings
from gazetteer.labeling.rules.reduce import join_verdicts, reduce_site, site_tests
from tests.support.runs.layout_runs import world_run
from tests.support.runs.small_world import FOLLOWS, MERELY_TOP, MID, World, map_code, sky_world

CONFIG = LabelConfig(permutations=200, refine=0)
GRID = (8, 8)


def with_holes(world: World, seed: int = 0, most: float = 0.5) -> World:
    """The pictures of a world given by people who left a side of each undecided, up to a share of it."""
    rng, inputs = np.random.default_rng(seed), []
    for one in world.inputs:
        hole = np.zeros(one.size, bool)
        hole[: int(rng.uniform(0, most) * one.size[0])] = True
        hole = np.rot90(hole, int(rng.integers(4)))
        shown = [(concept, mask & ~hole) for concept, mask in one.segments if (mask & ~hole).any()]
        codes = {site: with_ignored(code, hole) for site, code in one.codes.items()}
        inputs.append(replace(one, segments=shown, codes=codes))
    return World(inputs, world.base)


def emptied(world: World) -> World:
    """The same without what fires where nobody decided."""
    inputs = []
    for one in world.inputs:
        codes = {site: replace(code, value=np.maximum(code.value, 0)) for site, code in one.codes.items()}
        inputs.append(replace(one, codes=codes))
    return World(inputs, world.base)


def whole(world: World) -> World:
    """The same as if everything had been decided."""
    inputs = []
    for one in world.inputs:
        codes = {site: replace(code, value=np.abs(code.value)) for site, code in one.codes.items()}
        inputs.append(replace(one, codes=codes))
    return World(inputs, world.base)


@pytest.fixture(scope="module")
def world() -> World:
    return with_holes(sky_world(80))


def parts_of(world: World) -> tuple[SiteCodes, Any]:
    return codes_by_site(world.codes)[MID], read_concepts(world.images, world.segments, [GRID])


def test_cells_that_are_ignored_by_more_than_half_get_a_minus_sign() -> None:
    code = SparseMap(2, 2, 2, np.arange(8, dtype=np.uint32), np.array([1, 2, 3, 4, 5, 0, 7, 8], np.float16))
    ignored = np.zeros((4, 4), bool)
    ignored[:2, :2], ignored[0, 2:], ignored[2:, 0], ignored[3, 1] = True, True, True, True  # of 4 pixels: 4, 2, 3, 0
    marked = with_ignored(code, ignored)
    assert marked.value.tolist() == [-1, -2, 3, 4, -5, 0, 7, 8] and not np.signbit(marked.value[5])
    assert np.array_equal(marked.feature, code.feature) and marked.value.dtype == np.float16
    codes = flat_codes(MID, ["a"], (2, 2), marked.feature, marked.value, np.array([8]))
    assert codes.value.tolist() == [1, 2, 3, 4, 5, 7, 8]
    assert codes.ignored is not None and codes.ignored.tolist() == [True, True, False, False, True, False, False]
    assert codes.judged().feature.tolist() == [2, 3, 6, 7] and codes.judged().ignored is None
    assert codes.among(0, 4).ignored is not None and codes.among(2, 4).ignored is None
    assert pack(marked.feature, marked.value, 2, np.array([0])) == pack(code.feature, code.value, 2, np.array([0]))


def test_codes_of_shards_join_with_their_marks(world: World) -> None:
    codes, _ = parts_of(world)
    nothing = World([replace(one, codes=whole(World([one])).inputs[0].codes) for one in world.inputs[:20]])
    joined = join_codes([codes_by_site(part.codes)[MID] for part in (World(world.inputs[20:]), nothing)])
    assert codes.ignored is not None and joined.ignored is not None
    late = np.array([int(name[1:]) >= 20 for name in codes.image_ids])[codes.image]
    assert np.array_equal(joined.ignored, codes.ignored & late) and np.array_equal(joined.value, codes.value)


def test_words_are_no_part_of_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of a prompt are no columns of the picture."""
    text = Site("mid", "cond", 0.5, stream="text")
    code = {MID: map_code({0: np.ones((2, 2))}), text: map_code({0: np.ones((1, 4))})}
    picture = Picture(np.zeros((4, 4, 3), np.uint8), code)
    ignored = np.zeros((4, 4), bool)
    ignored[:, :2] = True
    read = GivenPicture(picture.image, (), frozenset(), ignored)
    monkeypatch.setattr(stage, "noised_pictures", lambda *_: [picture])
    items = [SimpleNamespace(image_id="a", prompt="", seed=0)]
    source: Any = SimpleNamespace(fitted=lambda *_: read, concepts=())
    generator, check = SimpleNamespace(picture_size=(4, 4)), SimpleNamespace(open=False)
    (made,) = given_pictures(source, items, generator, {}, check, {})  # type: ignore[arg-type]
    assert made.picture.codes[MID].value.tolist() == [-1, 1, -1, 1]
    assert made.picture.codes[text].value.tolist() == [1, 1, 1, 1]


def test_evidence_counts_what_somebody_decided_on(world: World) -> None:
    assert not world.evidence.equals(whole(world).evidence)
    assert world.evidence.equals(emptied(world).evidence)


def test_the_nulls_and_the_lift_look_at_all_that_fires(world: World) -> None:
    codes, maps = parts_of(world)
    full = codes_by_site(whole(world).codes)[MID]
    mine, theirs = (
        site_tests(codes, maps, np.zeros((80, 0), bool), CONFIG),
        site_tests(full, maps, np.zeros((80, 0), bool), CONFIG),
    )
    assert np.array_equal(mine.pairs.p, theirs.pairs.p) and np.array_equal(mine.beyond.place_p, theirs.beyond.place_p)
    met = meetings(codes, maps)
    rows = make_pairs(world.evidence, NULLS.empty_table(), "toy", met).to_pylist()
    lift = dict(zip(zip(met.features[met.row], met.concept, strict=True), met.intersection / met.expected, strict=True))
    assert rows and all(row["lift"] == lift[row["feature"], maps.concepts.index(row["concept"])] for row in rows)
    assert all(0 <= row["null_iou"] <= 1 for row in rows)


def test_what_fires_where_nobody_decided_alone_meets_nothing_in_evidence() -> None:
    """Its pairs with the concepts are tested, and no row of them is made."""
    world = sky_world(40)
    hole = np.zeros((32, 32), bool)
    hole[:12] = True
    inputs = []
    for one in world.inputs:
        codes = {site: with_ignored(code, hole) for site, code in one.codes.items()}
        shown = [(concept, mask & ~hole) for concept, mask in one.segments if (mask & ~hole).any()]
        inputs.append(replace(one, segments=shown, codes=codes))
    made = World(inputs, world.base).reduce({MID: 4}, config=CONFIG, given=True)
    corner = made["features"].to_pylist()[3]
    assert (corner["images"], corner["dead"], corner["density"]) == (3, False, 3 / (40 * 64))
    assert not [row for row in made["candidates"].to_pylist() if row["feature"] == 3 and row["kind"] != "place"]


def test_features_tested_apart_give_the_tables_of_all(world: World) -> None:
    codes, maps = parts_of(world)
    looks = np.zeros((80, 0), bool)
    at_once = reduce_site(MID, codes, maps, looks, world.evidence, 4, "toy", CONFIG)
    parts = [codes.among(low, low + 1) for low in range(4)]
    verdicts = join_verdicts(MID, [site_tests(part, maps, looks, CONFIG) for part in parts], maps.concepts, CONFIG)
    feature = world.evidence["feature"].to_numpy(zero_copy_only=False)
    rows: list[dict[str, Any]] = []
    for low, part in enumerate(parts):
        own = world.evidence.filter(np.isnan(feature) | (feature == low))
        rows += reduce_site(MID, part, maps, looks, own, 4, "toy", CONFIG, 0, verdicts.among(low, low + 1))[
            0
        ].to_pylist()
    assert rows == at_once[0].to_pylist()


@pytest.mark.parametrize("most", [0.0, 0.5])
def test_a_feature_that_follows_the_sky_is_called_so_all_the_same(most: float) -> None:
    made = with_holes(sky_world(120), most=most).reduce({MID: 4}, given=True)
    named = [(row["feature"], row["concept"], row["kind"]) for row in made["labels"].to_pylist()]
    assert named == [(FOLLOWS, "sky", "thing"), (MERELY_TOP, "top half", "place")]


def test_pictures_without_undecided_cells_have_the_same_tables() -> None:
    world = sky_world(40)
    unmarked, marked = world.reduce({MID: 4}, given=True), with_holes(world, most=0.0).reduce({MID: 4}, given=True)
    assert all(marked[name].equals(table) for name, table in unmarked.items())


def test_activation_inside_a_region_is_a_share_of_what_somebody_decided_on() -> None:
    hole, mask, fires = np.zeros((32, 32), bool), np.zeros((32, 32), bool), np.zeros(GRID)
    hole[16:], mask[:16, :16], fires[3:5, :4] = True, True, 1
    inputs = []
    for name in ("a", "b"):
        code = with_ignored(map_code({0: fires, 1: np.ones(GRID)}), hole)
        inputs.append(
            ImageEvidenceInput(
                name, "discovery", (32, 32), ("sky",), [("sky", mask)] if name == "a" else [], {MID: code}
            )
        )
    codes, maps = parts_of(World(inputs, ("sky",)))
    told = explain(codes, maps)
    assert told.inside[:, 0].tolist() == [0.5, 0.25]  # in half of the pictures, all and half of the decided cells
    assert told.inside[:, 1].tolist() == [0.5, 0.5]


def test_shuffled_masks_meet_all_that_fires(world: World) -> None:
    """Beside the masks of other pictures the holes of its own say nothing."""
    mine, theirs = (
        shuffled_label_counts(one.images, one.codes, one.segments, {MID: 4}, one.base, label_config=CONFIG, given=True)
        for one in (world, whole(world))
    )
    assert {name: mine[name] for name in mine if "shuffled" in name} == {
        name: theirs[name] for name in theirs if "shuffled" in name
    }
    assert (mine["trusted"], mine["trusted_shuffled"], mine["q_shuffled"]) == (1, 0, 0)


def layout_run(folder: Path, world: World) -> LayoutRun:
    return open_run(world_run(folder, world, "a sky and a ball", {"pictures.voc": "a folder"}))


def test_layouts_count_undecided_cells_as_cells_without_the_concept(world: World, tmp_path: Path) -> None:
    run = layout_run(tmp_path / "run", world)
    images = run.of_split("discovery")
    table, codes = run.tables[MID], run.codes(MID, images)
    assert codes.ignored is not None and codes.ignored.any()
    own = own_counts(table, codes, run.truth(GRID, images))
    total, area = np.zeros_like(table.intersection), np.zeros_like(table.area)
    np.add.at(total, own.keys % len(table.features), own.intersection)
    np.add.at(area, own.keys % len(table.features), own.area[:, None] * own.asked[own.keys // len(table.features)])
    assert np.array_equal(total, table.intersection) and np.array_equal(area, table.area)
    every = layout_run(tmp_path / "whole", whole(world)).tables[MID]
    for name in ("intersection", "area", "expected", "prior_area", "prior_pixels"):
        assert np.array_equal(getattr(table, name), getattr(every, name)), name


def test_features_that_know_nothing_tell_no_layout_beside_holes(tmp_path: Path) -> None:
    rng, inputs = np.random.default_rng(1), []
    for number in range(200):
        shown = []
        for concept in ("ball", "sky"):
            mask, side = np.zeros((32, 32), bool), int(rng.integers(8, 17))
            y, x = rng.integers(0, 33 - side, 2)
            mask[y : y + side, x : x + side] = True
            shown.append((concept, mask))
        codes = {MID: map_code({feature: (rng.random(GRID) < 0.3) * 1.0 for feature in range(6)})}
        split = "heldout" if number % 4 == 3 else "discovery"
        inputs.append(ImageEvidenceInput(f"i{number:04d}", split, (32, 32), ("ball", "sky"), shown, codes))
    run = layout_run(tmp_path / "run", with_holes(World(inputs, ("ball", "sky")), 3, 0.6))
    table = run.tables[MID]
    weights = table.weights(np.arange(6), table.intersection, table.area)
    assert np.abs(weights).max() < 0.1, "of the log odds; 0.3 and more where features are silent in holes"
    contrasts = concept_contrasts(run, MID)
    assert all(max((0.0, *values)) < 0.02 for _, values in contrasts.values()), "0.05 and more where they are silent"
