"""Masks read shard by shard and sites reduced apart give what everything at once gives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.schemas import EVIDENCE
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, join_concepts, read_concepts
from gazetteer.labeling.evidence.site_codes import codes_by_site, join_codes
from gazetteer.labeling.evidence.view import views
from gazetteer.labeling.rules.labels import NULLS, make_pairs
from gazetteer.labeling.rules.meetings import meetings
from gazetteer.labeling.rules.run_reduce import stretches
from tests.support.runs.small_world import MID, World, sky_world


def test_maps_of_disjoint_images_join_to_the_maps_of_all() -> None:
    world = sky_world(23)
    grids = [(8, 8), (4, 4)]
    whole = read_concepts(world.images, world.segments, grids)
    names = sorted(world.images["image_id"].to_pylist())
    parts = []
    for third in (2, 0, 1):
        mine = names[third::3]
        images, segments = (
            table.filter([name in mine for name in table["image_id"].to_pylist()])
            for table in (world.images, world.segments)
        )
        parts.append(read_concepts(images, segments, grids))
    assert_same(join_concepts(parts), whole)
    assert_same(join_concepts([whole]), whole)


def assert_same(one: ConceptMaps, other: ConceptMaps) -> None:
    assert (one.image_ids, one.concepts) == (other.image_ids, other.concepts)
    for name in ("splits", "sizes", "asked", "union_image", "union_concept"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.pixels.keys() == other.pixels.keys()
    for grid, pixels in one.pixels.items():
        assert np.array_equal(pixels, other.pixels[grid]) and pixels.dtype == other.pixels[grid].dtype


@pytest.mark.parametrize("count", [1, 5])
def test_images_without_segments_are_kept(count: int) -> None:
    world = sky_world(count)
    none = world.segments.slice(0, 0)
    joined = join_concepts([read_concepts(world.images.slice(at, 1), none, [(4, 4)]) for at in range(count)])
    assert_same(joined, read_concepts(world.images, none, [(4, 4)]))


def test_a_site_is_cut_by_its_size_and_every_feature_is_in_one_stretch() -> None:
    assert [(one.low, one.high) for one in stretches(MID, 5120, 14_000_000, 80)] == [(0, 5120)]
    cut = stretches(MID, 5120, 102_400_000, 80)
    assert [one.low for one in cut] == [0, *(one.high for one in cut[:-1])]
    assert (cut[-1].high, len(cut)) == (5120, 8)
    assert len(stretches(MID, 20_480, 2**20, 5000)) == 7  # by what is explained of every concept
    assert [(one.low, one.high) for one in stretches(MID, 2, 2**30, 1)] == [(0, 1), (1, 2)]


def test_codes_of_disjoint_images_join_and_meet_as_the_evidence_says() -> None:
    world = sky_world(30)
    whole = codes_by_site(world.codes)[MID]
    joined = join_codes([codes_by_site(World(world.inputs[at::3]).codes)[MID] for at in (1, 2, 0)])
    assert joined.image_ids == whole.image_ids
    for name in ("image", "feature", "cell", "value"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
    maps = read_concepts(world.images, world.segments, [(8, 8)])
    for split, told in views(world.evidence)[MID].items():
        met = meetings(whole, maps, split)
        assert met.images == told.images
        for name in ("features", "feature_images", "concept_images", "row", "concept", "intersection"):
            assert np.array_equal(getattr(met, name), getattr(told, name)), name
        assert np.array_equal(met.expected, told.expected_intersection())


def test_evidence_without_maps_makes_the_same_pairs_with_the_codes_at_hand() -> None:
    world = sky_world(30)
    whole, maps = codes_by_site(world.codes)[MID], read_concepts(world.images, world.segments, [(8, 8)])
    bare = world.evidence.set_column(
        EVIDENCE.get_field_index("cells"),
        EVIDENCE.field("cells"),
        pa.nulls(len(world.evidence), EVIDENCE.field("cells").type),
    )
    pairs = make_pairs(world.evidence, NULLS.empty_table(), "toy")
    assert pairs.num_rows and make_pairs(bare, NULLS.empty_table(), "toy", meetings(whole, maps)).equals(pairs)
    with pytest.raises(InputError, match="Evidence and codes contradict each other"):
        make_pairs(bare, NULLS.empty_table(), "toy", meetings(whole.among(1, 4), maps))
    with pytest.raises(InputError, match="read without its maps"):
        make_pairs(bare, NULLS.empty_table(), "toy")
