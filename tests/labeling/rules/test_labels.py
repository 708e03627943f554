"""What evidence says of pairs, from counts small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.schemas import PAIRS
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.labeling.rules.labels import NULLS, make_pairs
from tests.support.runs.small_world import MID, map_code


def half(rows: slice) -> np.ndarray:
    mask = np.zeros((4, 4), bool)
    mask[rows] = True
    return mask


TOP, BOTTOM = half(slice(0, 2)), half(slice(2, 4))


def image(name: str, maps: dict[int, list], segments: list, split: str = "discovery", **kw: object):  # type: ignore[no-untyped-def]
    code = map_code({f: np.array(m, float).reshape(2, 2) for f, m in maps.items()})
    asked = kw.get("asked", ("sea", "sky"))
    return ImageEvidenceInput(name, split, (4, 4), asked, segments, {kw.get("site", MID): code})  # type: ignore[arg-type]


def nulls(*rows: tuple[int, str, float]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {**MID.columns(), "feature": f, "concept": c, "p_value": q / 2, "q_value": q, "where_lift": 1.5,
             "where_p_value": q, "where_q_value": 2 * q}
            for f, c, q in rows
        ],
        schema=NULLS,
    )  # fmt: skip


def by_pair(table: pa.Table) -> dict[tuple[int, str], dict[str, object]]:
    return {(row["feature"], row["concept"]): row for row in table.to_pylist()}


# Feature 5 fires at the top of a and b; sky is there in a and c.
THREE = [
    image("a", {5: [1, 1, 0, 0]}, [("sky", TOP)]),
    image("b", {5: [1, 1, 0, 0]}, []),
    image("c", {6: [0, 0, 1, 0]}, [("sky", TOP)]),
]


@pytest.mark.parametrize("base", [(), ("sea", "sky")])
def test_statistics_by_hand(base: tuple[str, ...]) -> None:
    # A = 16 px, M = 16 px, I = 8 px; shuffled: 2 cells x 2 images x 8 px / 3 images = 32/3 px.
    held = image("d", {5: [1, 0, 0, 0]}, [("sky", TOP)], "heldout")
    table = make_pairs(build_evidence([*THREE, held], base), nulls((5, "sky", 0.01)), "toy")
    assert table.schema.equals(PAIRS)
    row = by_pair(table)[5, "sky"]
    assert (row["images_feature"], row["images_concept"], row["images_both"], row["hits"]) == (2, 2, 1, 1)
    assert (row["hit_rate"], row["mean_iou"]) == (1.0, 1.0)
    assert row["dataset_iou"] == pytest.approx(8 / 24)
    assert (row["precision"], row["recall"]) == (0.5, 0.5)
    assert row["null_iou"] == pytest.approx((32 / 3) / (32 - 32 / 3))
    assert row["lift"] == pytest.approx(8 / (32 / 3))
    assert (row["p_value"], row["q_value"]) == (0.005, 0.01)
    assert (row["heldout_images"], row["heldout_hit_rate"]) == (1, 0.0)  # IoU 4/8 is not above 0.5
    assert row["heldout_dataset_iou"] == pytest.approx(0.5)
    assert (row["where_lift"], row["where_p_value"], row["where_q_value"]) == (1.5, 0.01, 0.02)
    assert (row["paper_label"], row["model"]) == (True, "toy")


def test_only_images_that_were_asked_count() -> None:
    unasked = image("b", {5: [1, 1, 0, 0]}, [], asked=("sea",))
    row = by_pair(make_pairs(build_evidence([THREE[0], unasked, THREE[2]]), nulls(), "toy"))[5, "sky"]
    assert (row["images_feature"], row["precision"], row["dataset_iou"]) == (1, 1.0, 0.5)
    # The feature's cells are known over both images and scaled by its share of asked ones: half of 32/2 px.
    assert row["lift"] == pytest.approx(8 / 8)


def test_undefined_ratios_are_null() -> None:
    row = by_pair(make_pairs(build_evidence(THREE), nulls(), "toy"))[5, "sky"]
    assert [row[name] for name in ("p_value", "q_value", "heldout_hit_rate", "heldout_dataset_iou")] == [None] * 4
    assert row["heldout_images"] == 0
    empty = image("a", {5: [1, 0, 0, 0]}, [("sky", np.zeros((4, 4), bool))])
    row = by_pair(make_pairs(build_evidence([empty]), nulls(), "toy"))[5, "sky"]
    assert (row["recall"], row["lift"], row["dataset_iou"]) == (None, None, 0.0)


def test_a_pair_that_parts_on_heldout_images_scores_zero_there() -> None:
    apart = image("d", {5: [1, 1, 0, 0]}, [("sea", BOTTOM)], "heldout")
    row = by_pair(make_pairs(build_evidence([*THREE, apart]), nulls(), "toy"))[5, "sky"]
    assert (row["heldout_images"], row["heldout_hit_rate"], row["heldout_dataset_iou"]) == (0, None, 0.0)
    unasked = image("d", {5: [1, 1, 0, 0]}, [("sea", BOTTOM)], "heldout", asked=("sea",))
    row = by_pair(make_pairs(build_evidence([*THREE, unasked]), nulls(), "toy"))[5, "sky"]
    assert (row["heldout_images"], row["heldout_dataset_iou"]) == (0, None), "nobody looked for a sky there"
    asked = image("e", {3: [1, 0, 0, 0]}, [], "heldout", asked=("sky",))
    row = by_pair(make_pairs(build_evidence([*THREE, unasked, asked]), nulls(), "toy"))[5, "sky"]
    assert row["heldout_dataset_iou"] is None, "where a sky was looked for, neither it nor the feature was"
    vain = image("f", {5: [1, 0, 0, 0]}, [], "heldout", asked=("sky",))
    row = by_pair(make_pairs(build_evidence([*THREE, unasked, asked, vain]), nulls(), "toy"))[5, "sky"]
    assert (row["heldout_images"], row["heldout_dataset_iou"]) == (0, 0.0)


def test_rows_are_ordered_and_labels_have_their_schema() -> None:
    sites = [Site("b", "cond", 0.0), Site("b", "cond", 1.0), Site("a", "uncond", 0.5)]
    images = [image(f"i{n}", {7: [1, 0, 0, 0], 3: [0, 1, 0, 0]}, [("sky", TOP)], site=s) for n, s in enumerate(sites)]
    table = make_pairs(build_evidence(images), nulls(), "toy")
    keys = list(zip(*(table[name].to_pylist() for name in ("block", "t", "feature")), strict=True))
    assert keys == [("a", 0.5, 3), ("a", 0.5, 7), ("b", 1.0, 3), ("b", 1.0, 7), ("b", 0.0, 3), ("b", 0.0, 7)]
    assert make_pairs(build_evidence([]), nulls(), "toy").equals(PAIRS.empty_table())
