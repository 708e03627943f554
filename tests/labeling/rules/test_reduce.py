"""From a run's tables to its final tables; the check by shuffling; the ceiling of a grid."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.schemas import FINAL_TABLES
from gazetteer.labeling.evidence.concept_maps import read_concepts
from gazetteer.labeling.evidence.counts import sum_evidence
from gazetteer.labeling.quality.ceiling import best_rounding, grid_ceiling
from gazetteer.labeling.quality.shuffle_check import evidence_of_tables, shuffle_concepts, shuffled_label_counts
from gazetteer.labeling.rules.config import LabelConfig
from tests.support.runs.small_world import FOLLOWS, MERELY_TOP, MID, World, reduced, sky_world


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


def test_only_the_feature_that_follows_the_sky_is_labelled_sky() -> None:
    world = sky_world()
    tables = world.reduce({MID: 4})
    assert {name: table.schema for name, table in tables.items()} == FINAL_TABLES
    named = [(r["feature"], r["concept"], r["kind"]) for r in tables["labels"].to_pylist()]
    assert named == [(FOLLOWS, "sky", "thing"), (MERELY_TOP, "top half", "place")]


def test_final_tables_depend_on_the_content_alone() -> None:
    world = sky_world(40)
    whole = world.reduce({MID: 4})
    parts = [World(world.inputs[i::3], world.base).evidence for i in (2, 0, 1)]
    again = reduced(
        shuffled(world.images, 1), shuffled(world.codes, 2), shuffled(world.segments, 3), sum_evidence(parts), {MID: 4}
    )
    assert all(again[name].equals(whole[name]) for name in whole)


def test_evidence_and_codes_must_name_the_same_sites() -> None:
    world = sky_world(6)
    with pytest.raises(InputError, match="no picture has codes"):
        reduced(world.images, world.codes.slice(0, 0), world.segments, world.evidence, {MID: 4})


def test_a_run_without_images_has_dead_features_only() -> None:
    empty = World()
    tables = empty.reduce({MID: 2})
    assert tables["features"]["dead"].to_pylist() == [True, True]
    assert tables["labels"].num_rows == tables["candidates"].num_rows == 0


def test_evidence_can_be_counted_again_from_the_tables() -> None:
    world = sky_world(20)
    assert evidence_of_tables(world.images, world.codes, world.segments, world.base).equals(world.evidence)


def test_shuffling_moves_every_concept_and_keeps_masks_and_splits() -> None:
    world = sky_world(40)
    moved = shuffle_concepts(world.segments, world.images, seed=0)
    assert moved.drop_columns("image_id").equals(world.segments.drop_columns("image_id"))
    pairs = list(zip(world.segments["image_id"].to_pylist(), moved["image_id"].to_pylist(), strict=True))
    assert all(a != b for a, b in pairs)
    split = dict(zip(world.images["image_id"].to_pylist(), world.images["split"].to_pylist(), strict=True))
    assert all(split[a] == split[b] for a, b in pairs)
    assert not moved.equals(shuffle_concepts(world.segments, world.images, seed=1))


def test_labels_vanish_when_concepts_are_shuffled() -> None:
    world = sky_world()
    counts = shuffled_label_counts(world.images, world.codes, world.segments, {MID: 4}, world.base)
    assert (counts["trusted"], counts["trusted_shuffled"]) == (1, 0)
    assert counts["paper_shuffled"] >= 1  # the published rule still finds hits
    assert (counts["q"], counts["q_shuffled"]) == (1, 0)


def test_the_q_value_alone_is_counted_beside_the_trust_rule() -> None:
    """A lift that no pair reaches trusts none; a limit of 1 passes every pair that was tested."""
    world = sky_world(40)
    for limit in (0.05, 1.0):
        config = LabelConfig(max_q=limit, min_lift=1e9, permutations=200, refine=0)
        counts = shuffled_label_counts(
            world.images, world.codes, world.segments, {MID: 4}, world.base, label_config=config
        )
        found = world.reduce({MID: 4}, config=config)["candidates"].to_pylist()
        q_values = [row["q_value"] for row in found if row["kind"] not in ("style", "place")]
        assert counts["q"] == sum(q is not None and q <= limit for q in q_values) > 0
        assert (counts["trusted"], counts["trusted_shuffled"]) == (0, 0)
    assert counts["q_shuffled"] > 0


def test_segments_of_unknown_images_and_masks_of_other_sizes_are_refused() -> None:
    world = sky_world(6)
    with pytest.raises(InputError, match="lacks"):
        read_concepts(world.images.slice(1), world.segments, [(8, 8)])
    at = world.images.schema.get_field_index("width")
    wide = world.images.set_column(at, world.images.schema.field("width"), pa.array([64] * 6, pa.int32()))
    with pytest.raises(InputError, match="picture"):
        read_concepts(wide, world.segments, [(8, 8)])


def test_the_best_rounding_by_hand() -> None:
    # Shares 1, 0.6, 0.2 of 10-pixel cells, 18 mask pixels: IoU 10/18, 16/(20 + 2) and 18/30.
    half, best, fraction = best_rounding(np.array([[10, 6, 2]]), np.full((1, 3), 10))
    assert (half, best, fraction) == (pytest.approx(16 / 22), pytest.approx(16 / 22), 0.6)
    # The half rule drops a cell of share 0.45 that is worth taking: 100/165 against 145/(200 + 20).
    half, best, fraction = best_rounding(np.array([[100, 45, 20]]), np.full((1, 3), 100))
    assert half == pytest.approx(100 / 165)
    assert best == pytest.approx(145 / 220)
    assert fraction == 0.45


def test_no_choice_of_cells_beats_the_ceiling() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        areas = rng.integers(1, 6, (2, 4))
        pixels = np.minimum(rng.integers(0, 6, (2, 4)), areas)
        pixels[0, 0] = 1
        flat, area = pixels.ravel(), areas.ravel()
        picks = (np.arange(1, 256)[:, None] >> np.arange(8)) & 1
        best = max((p @ flat) / (p @ area + flat.sum() - p @ flat) for p in picks)
        assert best_rounding(pixels, areas)[1] == pytest.approx(best)


def test_a_grid_that_fits_the_masks_has_no_ceiling() -> None:
    world = sky_world(20)
    rows = {
        (r["concept"], r["height"]): r for r in grid_ceiling(world.images, world.segments, [(8, 8), (3, 3)]).to_pylist()
    }
    assert rows["sky", 8]["best_iou"] == 1.0
    assert rows["sky", 3]["best_iou"] < 1.0
    assert rows["ball", 8]["half_iou"] <= rows["ball", 8]["best_iou"] < 1.0
