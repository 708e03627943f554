"""Masks read shard by shard and sites reduced apart give what everything at once gives."""

from __future__ import annotations

import numpy as np
import pytest

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, join_concepts, read_concepts
from tests.support.runs.small_world import sky_world


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
