"""What a data set says twice, in vain or against itself is refused, or told: it never counts as "asked, not there"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.table import TablePictures
from tests.data.inputs.given.folders import numbers, picture, rle

SQUARE = [[0, 0, 3, 0, 3, 3, 0, 3]]


def image(name: str = "a.png", number: int = 1, **about: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": 6, "width": 8, **about}


def mask(category: int, segmentation: Any = SQUARE, **about: Any) -> dict[str, Any]:
    about = {"id": category, "image_id": 1, **about}
    return {**about, "category_id": category, "segmentation": segmentation}


def coco(root: Path, images: list[dict], annotations: list[dict], *names: str, **files: dict) -> CocoPictures:
    """Categories 1, 2, … of these names; `files` lie beside."""
    for entry in images:
        picture(root / entry["file_name"])
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for name, own in ({"instances": content} | files).items():
        (root / f"{name}.json").write_text(json.dumps(own))
    return CocoPictures(str(root))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["dog"], r"instances.json has a mask of cat in a, but says that a was not asked it"),
        ("dog", r"instances.json says that a was asked 'dog'; accepted: a list of text"),
        (["dog", "cta"], "says that a was asked 'cta', which is no category there; did you mean cat"),
        (["dog", 1], "accepted: a list of text"),
    ],
)
def test_what_coco_says_was_asked_agrees_with_its_masks(tmp_path: Path, asked: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        coco(tmp_path, [image(gazetteer={"asked": asked})], [mask(1), mask(2)], "dog", "cat")
    crowd = coco(tmp_path, [image(gazetteer={"asked": ["dog"]})], [mask(1), mask(2, iscrowd=1)], "dog", "cat")
    assert crowd.read("a").unasked == {"cat"}, "a crowd is not asked either"


def test_a_mask_that_is_to_be_ignored_is_a_crowd(tmp_path: Path) -> None:
    source = coco(tmp_path, [image()], [mask(1, ignore=1), mask(2, ignore=0)], "dog", "cat")
    assert source.read("a").unasked == {"dog"} and [concept for concept, _ in source.read("a").segments] == ["cat"]
    with pytest.raises(InputError, match="has the ignore 'yes'; accepted: 0, 1"):
        coco(tmp_path, [image()], [mask(1, ignore="yes")], "dog")


BEYOND = [[100, 100, 120, 100, 120, 120, 100, 120]]


@pytest.mark.parametrize(
    "shape",
    [BEYOND, rle(np.zeros((6, 8), bool)), {"size": [6, 8], "counts": [48]}, {"size": [6, 8], "counts": [0, 0, 48]}],
)
def test_a_mask_without_a_pixel_does_not_say_that_nothing_is_there(tmp_path: Path, shape: Any) -> None:
    source = coco(tmp_path, [image(), image("b.png", 2)], [mask(1, shape), mask(2)], "dog", "cat")
    read = source.read("a")
    assert read.unasked == source.uncertain == {"dog"} and [concept for concept, _ in read.segments] == ["cat"]
    assert not source.read("b").unasked
    assert source.notes == (
        "1 annotations have no pixel inside their picture, such as one of dog in a; their pictures are not asked for "
        "these concepts.",
    )
    sizeless = coco(tmp_path, [{"id": 1, "file_name": "a.png"}], [mask(1, shape)], "dog")
    with pytest.raises(InputError, match="An annotation of dog in a has no pixel inside the picture"):
        sizeless.read("a")


def test_a_polygon_between_the_middles_of_pixels_is_there(tmp_path: Path) -> None:
    for at, (row, column) in ((2.6, (2, 2)), (-0.3, (0, 0))):
        tiny = [[at, at, at + 0.35, at, at + 0.35, at + 0.35, at, at + 0.35]]
        ((concept, drawn),) = coco(tmp_path, [image()], [mask(1, tiny)], "dog").read("a").segments
        assert concept == "dog" and np.argwhere(drawn).tolist() == [[row, column]]


def captions(*names: str) -> dict[str, Any]:
    own = [{"id": i, "image_id": i, "caption": f"of {name}"} for i, name in enumerate(names, 1)]
    return {"images": [image(name, i) for i, name in enumerate(names, 1)], "annotations": own}


def test_captions_that_join_no_picture_are_not_dropped_silently(tmp_path: Path) -> None:
    pictures = [image("img/a.png"), image("img/b.png", 2)]
    told = coco(tmp_path, pictures, [mask(1)], "dog", captions_x=captions("img/a.png", "c.png"))
    assert told.caption("img/a") == "of img/a.png"
    assert [note.split(" in ")[0] for note in told.notes] == ["1 captions of 2"] and "such as c." in told.notes[0]
    with pytest.raises(InputError, match=r"No caption of .*captions_x.json is of a picture that has masks: it names a"):
        coco(tmp_path, pictures, [mask(1)], "dog", captions_x=captions("a.png", "b.png"))
    stuff = {"images": [image()], "annotations": [], "categories": [{"id": 9, "name": "sky"}]}
    (tmp_path / "captions_x.json").unlink()
    with pytest.raises(InputError, match=r"No picture of .*stuff_x.json is one of the other file's: it names a, the"):
        coco(tmp_path, pictures, [mask(1)], "dog", stuff_x=stuff)


def test_categories_of_one_name_are_kept_apart_or_refused(tmp_path: Path) -> None:
    source = coco(tmp_path, [image()], [mask(1), mask(2)], "bass, fish", "bass, instrument")
    assert [concept for concept, _ in source.read("a").segments] == ["bass (fish)", "bass (instrument)"]
    with pytest.raises(InputError, match="gives the categories 1 and 2 one name, 'dog'"):
        coco(tmp_path, [image()], [mask(1), mask(2)], "dog", "Dog")


def test_what_lvis_does_not_know_is_a_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neg_category_ids of a is no list"):
        coco(tmp_path, [image(neg_category_ids="1")], [mask(1)], "dog")


def test_a_size_is_a_number(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives a the width '8', which is no number of pixels"):
        coco(tmp_path, [image(width="8")], [mask(1)], "dog")
    assert coco(tmp_path, [image(width=8.0)], [mask(1)], "dog").read("a").segments


def table(root: Path, *rows: dict[str, Any]) -> TablePictures:
    picture(root / "a.png")
    numbers(root / "m.png", np.ones((6, 8)))
    pq.write_table(
        pa.Table.from_pylist([{"image": "a.png", "mask": "m.png", **row} for row in rows]), root / "t.parquet"
    )
    return TablePictures(str(root / "t.parquet"))


def test_what_a_table_says_was_asked_agrees_with_its_masks(tmp_path: Path) -> None:
    asked = {"asked": ["cat"]}
    with pytest.raises(
        InputError, match=r"t.parquet has a mask of dog in the picture a, but says that it was not asked"
    ):
        table(tmp_path, {"concept": "dog", **asked}, {"concept": "cat", **asked})
    source = table(tmp_path, {"concept": "dog", "crowd": 1, **asked}, {"concept": "cat", "crowd": 0, **asked})
    assert source.read("a").unasked == {"dog"} and not source.notes
    assert "asked cta, of which no row" in table(tmp_path, {"concept": "dog", "asked": ["dog", "cta"]}).notes[0]
    apart = table(tmp_path, *({"concept": name, "asked": ["bass, b", "bass, a"]} for name in ("bass, a", "bass, b")))
    assert apart.concepts == ("bass (a)", "bass (b)") and not apart.uncertain


def test_a_mask_of_a_table_is_of_a_concept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Row 2 of .* has a mask and no concept that it is of"):
        table(tmp_path, {"concept": "dog"}, {"concept": None})
    assert table(tmp_path, {"concept": "dog"}, {"concept": None, "mask": None}).keys == ("a",)


@pytest.mark.parametrize("name", ["ignore", "ignored", "Void", "to_ignore"])
def test_a_table_says_that_it_marks_nothing_to_be_ignored(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"has a column '{name}': a table marks no pixels .* Call it 'crowd'"):
        table(tmp_path, {"concept": "dog", name: 1})
