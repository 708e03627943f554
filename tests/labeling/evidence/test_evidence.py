"""Evidence: exact counts that add up."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.data.tables.schemas import EVIDENCE
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence, sum_evidence
from gazetteer.labeling.evidence.site_codes import site_of
from tests.support.oracles import literal_evidence
from tests.support.runs.strategies import random_image, small_runs

MID = Site("mid", "cond", 0.5)


def as_dict(table: pa.Table) -> dict[tuple, dict[str, object]]:
    rows = {}
    for row in table.to_pylist():
        site = site_of(**{name: row.pop(name) for name in SITE_COLUMNS})
        key = (site.block, site.branch, site.t, row.pop("split"), row.pop("feature"), row.pop("concept"))
        assert key not in rows
        rows[key] = row
    return rows


def one_image(
    values: list[float], mask: np.ndarray, image_id: str = "a", asked: tuple = ("sky",)
) -> ImageEvidenceInput:
    """Feature 7 with the given values on a 2x2 grid over a 4x4 picture."""
    code = SparseMap(2, 2, 1, np.full(4, 7, np.uint32), np.array(values, np.float16))
    return ImageEvidenceInput(image_id, "discovery", (4, 4), asked, [("sky", mask)], {MID: code})


def top() -> np.ndarray:
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    return mask


def pair(table: pa.Table, feature: int | None = 7, concept: str | None = "sky") -> dict[str, object]:
    (row,) = [v for k, v in as_dict(table).items() if k[4:] == (feature, concept)]
    return row


def test_counts_of_one_image_by_hand() -> None:
    # The map [[2, 1], [0.1, 0]] has support 12 px; normalised and binarised at 0.1 it is the top half, 8 px.
    table = build_evidence([one_image([2, 1, 0.1, 0], top())])
    assert table.schema.equals(EVIDENCE)
    assert pair(table) == {
        "images": 1,
        "images_asked": 1,
        "hits": 1,
        "iou_micro": 1_000_000,
        "intersection": 8,
        "area": 12,
        "cells": None,
    }
    assert pair(table, 7, None) == {
        "images": 1,
        "images_asked": 0,
        "hits": 0,
        "iou_micro": 0,
        "intersection": 0,
        "area": 12,
        "cells": [1, 1, 1, 0],
    }
    assert pair(table, None) == {
        "images": 1,
        "images_asked": 1,
        "hits": 0,
        "iou_micro": 0,
        "intersection": 0,
        "area": 8,
        "cells": [4, 4, 0, 0],
    }
    assert pair(table, None, None)["images"] == 1


def test_a_constant_map_has_no_contrast_and_hits_nothing() -> None:
    row = pair(build_evidence([one_image([1, 1, 1, 1], np.ones((4, 4), bool))]))
    assert (row["hits"], row["iou_micro"], row["intersection"]) == (0, 0, 16)


def test_a_map_that_fires_everywhere_is_normalised_by_its_minimum() -> None:
    # (1.05 - 1) / (2 - 1) is not above 0.1, so only the top stays.
    row = pair(build_evidence([one_image([2, 2, 1.05, 1], top())]))
    assert (row["hits"], row["intersection"], row["area"]) == (1, 8, 16)


def test_thresholds_are_strict() -> None:
    half = one_image([1, 1, 1, 0], top())  # binary map 12 px, sky 8 px inside: IoU 8/12
    assert pair(build_evidence([half], config=EvidenceConfig(hit_iou=8 / 12)))["hits"] == 0
    assert pair(build_evidence([half], config=EvidenceConfig(hit_iou=0.66)))["hits"] == 1
    even = one_image([2, 1, 1, 0], top())  # the ones lie exactly at 0.5
    assert pair(build_evidence([even], config=EvidenceConfig(binarize=0.5)))["iou_micro"] == 500_000


def test_pairs_of_base_concepts_leave_their_denominators_to_the_feature() -> None:
    silent = dataclasses.replace(one_image([1, 0, 0, 0], top(), "b"), segments=[])
    row = pair(build_evidence([one_image([1, 0, 0, 0], top()), silent], base=("sky",)))
    assert (row["images"], row["images_asked"], row["area"], row["intersection"]) == (1, 0, 0, 4)
    assert (None, "sky") in {k[4:] for k in as_dict(build_evidence([silent], base=("sky",)))}
    assert (7, "sky") not in {k[4:] for k in as_dict(build_evidence([silent], base=("sky",)))}
    open_row = pair(build_evidence([silent]))
    assert (open_row["images"], open_row["images_asked"], open_row["area"]) == (0, 1, 4)


@settings(max_examples=150, deadline=None)
@given(small_runs())
def test_evidence_equals_upsampling_every_map_and_comparing_pixels(run: tuple) -> None:
    images, base = run
    assert as_dict(build_evidence(images, base)) == literal_evidence(images, base)


@settings(max_examples=100, deadline=None)
@given(small_runs())
def test_evidence_of_a_union_is_the_sum_of_evidence_in_any_order(run: tuple) -> None:
    images, base = run
    whole = build_evidence(images, base)
    parts = [build_evidence(images[i::3], base) for i in range(3)]
    assert sum_evidence(parts).equals(whole)
    assert sum_evidence(parts[::-1]).equals(whole)
    assert sum_evidence([sum_evidence(parts[:2]), parts[2]]).equals(whole)
    assert build_evidence(images[::-1], base).equals(whole)


def test_collapsing_early_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    images = [random_image(rng, i, ("sky",)) for i in range(8)]
    monkeypatch.setattr("gazetteer.labeling.evidence.rows._COLLAPSE_BYTES", 1)
    assert sum_evidence(build_evidence([one], ("sky",)) for one in images).equals(build_evidence(images, ("sky",)))


def test_no_images_no_evidence() -> None:
    assert build_evidence([]).equals(EVIDENCE.empty_table())
    assert sum_evidence([]).equals(EVIDENCE.empty_table())


def test_bad_input_is_refused() -> None:
    image = one_image([1, 0, 0, 0], top())
    with pytest.raises(InputError, match="twice"):
        build_evidence([image, image])
    with pytest.raises(InputError, match="base"):
        build_evidence([image], base=("sea",))
    with pytest.raises(InputError, match="mask"):
        build_evidence([dataclasses.replace(image, size=(5, 4))])
    with pytest.raises(InputError, match="binarize"):
        EvidenceConfig(binarize=1.0)
    small = SparseMap(1, 1, 1, np.zeros(1, np.uint32), np.ones(1, np.float16))
    with pytest.raises(InputError, match="grids"):
        build_evidence([image, dataclasses.replace(image, image_id="b", codes={MID: small})])
    short = SparseMap(2, 2, 1, np.zeros(3, np.uint32), np.ones(3, np.float16))
    with pytest.raises(InputError, match="fill"):
        build_evidence([dataclasses.replace(image, codes={MID: short})])


def test_a_large_vocabulary_takes_room_for_what_meets_alone() -> None:
    # 20,480 features x 5,000 concepts x 6 counts in a full table of int64 would be 4.9 GB.
    random = np.random.default_rng(0)
    names = tuple(f"word {number:04d}" for number in range(5000))
    images = []
    for number in range(4):
        code = SparseMap(16, 16, 10, random.integers(0, 20_480, 2560).astype(np.uint32), np.ones(2560, np.float16))
        shown = [(names[int(word)], np.eye(32, dtype=bool)) for word in random.integers(0, 5000, 5)]
        images.append(ImageEvidenceInput(f"{number}", "discovery", (32, 32), names, shown, {MID: code}))
    tracemalloc.start()
    try:
        table = build_evidence(images, names)
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()
    # Features that fire in a picture, times the five words that it shows.
    met = sum(len(np.unique(one.codes[MID].feature)) * len({word for word, _ in one.segments}) for one in images)
    both = np.logical_and(*(table[name].is_valid().to_numpy() for name in ("feature", "concept")))
    assert table["images"].to_numpy()[both].sum() == met
