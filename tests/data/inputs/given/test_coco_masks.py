"""Masks of COCO JSON that pycocotools draws wrongly, or not at all, without saying so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.coco_masks import decoded
from tests.data.inputs.given.folders import coco_folder, picture, rle

SQUARE = [1, 1, 6, 1, 6, 6, 1, 6]


def mask_of(segmentation: Any) -> np.ndarray:
    return decoded({"segmentation": segmentation}, 10, 12, "a")


def test_run_lengths_go_down_the_columns_background_first() -> None:
    expected = np.zeros((10, 12), bool)
    expected[5:, 0] = expected[:5, 1] = True
    for counts in ([5, 10, 105], [5.0, 10.0, 105.0], rle(expected)["counts"]):
        np.testing.assert_array_equal(mask_of({"size": [10, 12], "counts": counts}), expected)


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [10, 12], "counts": [5, 10]}, "run lengths do not add up to 10 × 12 pixels"),
        ({"size": [10, 12], "counts": []}, "run lengths do not add up"),
        ({"size": [10, 12], "counts": rle(np.ones((5, 6), bool))["counts"]}, "run lengths do not add up"),
        ({"size": [10, 12], "counts": "zzzz"}, "cut short"),
        ({"size": [10, 12], "counts": ""}, "cut short"),
        ({"size": [10, 12], "counts": [5, -10, 125]}, "Run lengths are whole numbers from 0 on"),
        ({"size": [10, 12], "counts": [float("nan")]}, "segmentation that cannot be read"),
        ({"size": [12, 10], "counts": [5, 10, 105]}, "measures 12 × 10, its picture 10 × 12"),
        ([SQUARE[:7]], "A polygon is a list of numbers, x and y in turn"),
        ([SQUARE, ["1"] * 6], "A polygon is a list of numbers"),
        (SQUARE, "A polygon is a list of numbers"),
        ([[*SQUARE[:7], float("nan")]], "a corner that lies nowhere near the picture of 10 × 12"),
        ([[*SQUARE[:7], 1e9]], "a corner that lies nowhere near the picture"),
    ],
)
def test_what_would_be_drawn_wrongly_is_refused(segmentation: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        mask_of(segmentation)


def test_a_polygon_of_two_corners_encloses_nothing_wherever_it_stands() -> None:
    line = [1, 1, 6, 6]
    for shape in ([SQUARE, line], [line, SQUARE]):
        np.testing.assert_array_equal(mask_of(shape), mask_of([SQUARE]))
    assert mask_of([SQUARE]).sum() == 25 and not mask_of([line]).any()


@pytest.mark.parametrize("shape", [[[]], [[0, 0, 2, 2]], {}, None])
def test_what_encloses_nothing_is_a_box_without_a_mask(tmp_path: Path, shape: Any) -> None:
    root = coco_folder(tmp_path)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = shape
    file.write_text(json.dumps(content))
    assert "dog" in CocoPictures(str(root)).read("1").unasked


def test_a_crowd_is_said_by_a_number(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["iscrowd"] = "0"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="has the iscrowd '0'; accepted: 0, 1"):
        CocoPictures(str(root))


def test_what_was_asked_is_named_as_categories_are(tmp_path: Path) -> None:
    """An export names a run's concepts as they are; as a category ``hot_dog`` is read as "hot dog"."""
    picture(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8, "gazetteer": {"asked": ["hot_dog"]}}],
        "categories": [{"id": 1, "name": "hot_dog"}, {"id": 2, "name": "cup"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}],
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(content))
    read = CocoPictures(str(tmp_path)).read("a")
    assert read.unasked == {"cup"} and [concept for concept, _ in read.segments] == ["hot dog"]


def test_another_data_sets_category_of_the_name_other_is_a_concept(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    assert "other" not in CocoPictures(str(root)).concepts
    file = root / "annotations" / "stuff_val2017.json"
    file.write_text(file.read_text().replace("183", "7"))
    source = CocoPictures(str(root))
    assert "other" in source.concepts
    assert sorted(concept for concept, _ in source.read("2").segments) == ["grass merged", "other"]
