"""One row for every feature, dead and unlabelled ones included; and the codes table as arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import Moment, SparseMap, codes_table
from gazetteer.data.tables.schemas import CANDIDATES, CODES, FEATURES
from gazetteer.labeling.evidence.site_codes import codes_by_site
from gazetteer.labeling.rules.features import make_features
from tests.support.runs.small_world import CORNER, FOLLOWS, MID, map_code, sky_world

NO_CANDIDATES = CANDIDATES.empty_table()


def codes_of(**maps: dict[int, list]) -> pa.Table:
    codes = [{MID: map_code({f: np.array(m, float).reshape(2, 2) for f, m in one.items()})} for one in maps.values()]
    return codes_table(list(maps), codes, {MID: Moment(0, 0)})


def test_activity_by_hand() -> None:
    table = codes_of(a={0: [1, 3, 0, 0], 2: [0, 0, 0, 0]}, b={0: [0, 0, 2, 0], 2: [0, 0, 0, 0]})
    features = make_features(MID, codes_by_site(table)[MID], NO_CANDIDATES, 3, "toy", images_wanted=3)
    assert features.schema.equals(FEATURES)
    first, second, third = features.to_pylist()
    assert (first["images"], first["images_wanted"], first["images_short"]) == (2, 3, 1)
    assert (first["density"], first["mean_activation"], first["max_activation"]) == (3 / 8, 2.0, 3.0)
    assert not first["dead"]
    # Spatial means 1 and 0.5; the maximum of a is in row 0, column 1, that of b in row 1, column 0.
    assert first["top_images"] == [
        {"image_id": "a", "value": 3.0, "row": 0, "column": 1},
        {"image_id": "b", "value": 2.0, "row": 1, "column": 0},
    ]
    for silent in (second, third):
        assert silent["dead"]
        assert (silent["density"], silent["mean_activation"], silent["best_label"]) == (0.0, None, None)
        assert (silent["images_short"], silent["top_images"], silent["labels"]) == (3, [], 0)


def test_at_most_nine_top_images_ties_by_name() -> None:
    table = codes_of(**{f"i{n:02d}": {0: [1, 1, 0, 0]} for n in range(12)})
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(12)))
    (row,) = make_features(MID, codes_by_site(shuffled)[MID], NO_CANDIDATES, 1, "toy").to_pylist()
    assert [one["image_id"] for one in row["top_images"]] == [f"i{n:02d}" for n in range(9)]
    assert {one["column"] for one in row["top_images"]} == {0}


def test_labels_of_the_best_rank_are_named() -> None:
    world = sky_world()
    tables = world.reduce({MID: 5}, images_wanted=9)
    rows = tables["features"].to_pylist()
    assert len(rows) == 5
    assert (rows[FOLLOWS]["best_label"], rows[FOLLOWS]["best_dataset_iou"]) == ("sky", 1.0)
    assert rows[FOLLOWS]["best_heldout_dataset_iou"] == 1.0
    assert [row["labels"] for row in rows] == [1, 1, 0, 0, 0]
    assert [(row["best_label"], row["best_kind"]) for row in rows[:2]] == [("sky", "thing"), ("top half", "place")]
    assert rows[1]["paper_labels"] == 1  # the published rule takes the top of the picture for the sky
    assert (rows[CORNER]["images"], rows[CORNER]["images_short"], rows[4]["dead"]) == (3, 6, True)


def test_a_site_without_codes_has_dead_features() -> None:
    features = make_features(MID, None, NO_CANDIDATES, 2, "toy")
    assert features["dead"].to_pylist() == [True, True]
    assert features["density"].to_pylist() == [None, None]


def test_sites_and_features_beyond_the_autoencoders_are_refused() -> None:
    codes = codes_by_site(codes_of(a={3: [1, 0, 0, 0]}))[MID]
    with pytest.raises(InputError, match="only 3"):
        make_features(MID, codes, NO_CANDIDATES, 3, "toy")
    with pytest.raises(InputError, match="no autoencoder"):
        sky_world(6).reduce({})


def test_t_survives_single_precision() -> None:
    site = Site("mid", "cond", 0.1)
    table = codes_table(["a"], [{site: map_code({0: np.ones((1, 1))})}], {site: Moment(0, 0)})
    assert list(codes_by_site(table)) == [site]
    assert make_features(site, codes_by_site(table)[site], NO_CANDIDATES, 1, "toy")["images"].to_pylist() == [1]


def test_flat_codes_hold_every_active_slot() -> None:
    rng = np.random.default_rng(0)
    codes, dense = [], np.zeros((4, 6, 7))
    for i in range(4):
        k = 1 + i % 2  # images may differ in k
        feature = np.concatenate([rng.permutation(7)[:k] for _ in range(6)])
        value = rng.integers(0, 3, 6 * k).astype(np.float16)
        dense[i, np.repeat(np.arange(6), k), feature] = value
        codes.append({MID: SparseMap(2, 3, k, feature.astype(np.uint32), value)})
    table = codes_table([f"i{i}" for i in range(4)], codes, {MID: Moment(0, 0)})
    parts = pa.concat_tables([table.slice(3), table.slice(0, 3)])  # several chunks, offsets that do not begin at 0
    flat = codes_by_site(parts)[MID]
    back = np.zeros_like(dense)
    back[flat.image, flat.cell, flat.feature] = flat.value
    assert np.array_equal(back, dense)
    assert (flat.value > 0).all()
    order = np.lexsort((flat.cell, flat.feature, flat.image))
    assert np.array_equal(order, np.arange(len(order)))


def test_a_feature_listed_twice_in_a_cell_counts_as_its_sum() -> None:
    code = SparseMap(1, 1, 2, np.array([4, 4], np.uint32), np.array([1, 2], np.float16))
    flat = codes_by_site(codes_table(["a"], [{MID: code}], {MID: Moment(0, 0)}))[MID]
    assert (flat.feature.tolist(), flat.value.tolist()) == ([4], [3.0])


def test_codes_that_contradict_themselves_are_refused() -> None:
    table = codes_of(a={0: [1, 0, 0, 0]})
    with pytest.raises(InputError, match="twice"):
        codes_by_site(pa.concat_tables([table, table]))
    rows = table.to_pylist()
    with pytest.raises(InputError, match="grids"):
        codes_by_site(pa.Table.from_pylist([*rows, {**rows[0], "image_id": "b", "height": 1}], schema=CODES))
    with pytest.raises(InputError, match="fill"):
        codes_by_site(pa.Table.from_pylist([{**rows[0], "height": 3}], schema=CODES))
    with pytest.raises(InputError, match="unequal"):
        codes_by_site(pa.Table.from_pylist([{**rows[0], "value": [1.0]}], schema=CODES))
    assert codes_by_site(CODES.empty_table()) == {}
