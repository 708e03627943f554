"""Which files belong to a COCO JSON: captions and stuff beside it, its split, and pictures of LVIS by address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.coco_files import annotation_files
from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.data.inputs.given.open import annotations_digest
from gazetteer.data.runs.folder import RunFolder
from gazetteer.labeling.export.coco import export_coco
from tests.data.inputs.given.folders import coco_folder, picture
from tests.support.runs.runs import finished_run


@pytest.mark.parametrize(
    ("name", "captions", "stuff"),
    [
        ("instances_val2017.json", "captions_val2017.json", "stuff_val2017.json"),
        ("instances.json", "captions_instances.json", "stuff_instances.json"),
        ("val.json", "captions_val.json", "stuff_val.json"),
    ],
)
def test_captions_and_stuff_beside_a_file_join_it(tmp_path: Path, name: str, captions: str, stuff: str) -> None:
    folder = coco_folder(tmp_path) / "annotations"
    for kind, new in (("instances", name), ("captions", captions), ("stuff", stuff)):
        (folder / f"{kind}_val2017.json").rename(folder / new)
    source = CocoPictures(str(folder / name), str(tmp_path / "val2017"))
    assert source.caption("2") == "people on grass" and "grass merged" in source.concepts
    before = annotations_digest(PicturesConfig(coco=str(folder / name)))
    (folder / captions).write_text((folder / captions).read_text().replace("people", "a crowd"))
    assert annotations_digest(PicturesConfig(coco=str(folder / name))) != before


@pytest.mark.parametrize("name", ["instances.json", "instances_run.json", "run.json"])
def test_an_export_is_read_with_its_captions(tmp_path: Path, name: str) -> None:
    export_coco(RunFolder(finished_run(tmp_path / "run").path), tmp_path / "c" / name)
    source = CocoPictures(str(tmp_path / "c" / name))
    assert {source.caption(key) for key in source.keys} == {"a dog"}


@pytest.mark.parametrize(
    ("name", "split", "same"),
    [
        ("instances_val2017", "val", True), ("instances_val2017", "val2017", True), ("lvis_v1_val", "val", True),
        ("val", "val", True), ("val-small", "val", True), ("instances_minival2014", "val", False),
        ("instances_untrained", "train", False), ("instances_val2017", "2017", False), ("instances_val2017", "", True),
    ],
)  # fmt: skip
def test_a_split_is_a_whole_part_of_the_name(name: str, split: str, same: bool, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.json"
    file.write_text("{}")
    for path in (file, tmp_path):
        if same:
            assert annotation_files(path, split) == [file]
        else:
            with pytest.raises(InputError, match=f"split[= ]{split}"):
                annotation_files(path, split)


def test_a_split_agrees_with_the_file_that_is_named(tmp_path: Path) -> None:
    file = coco_folder(tmp_path) / "annotations" / "instances_val2017.json"
    assert CocoPictures(str(file), split="val2017").keys == ("1", "2")
    with pytest.raises(InputError, match=r"instances_val2017\.json, which is not of pictures\.split=train2017"):
        CocoPictures(str(file), split="train2017")


@pytest.mark.parametrize("below", ["val2017/000000000139.png", "000000000139.png"])
def test_lvis_names_its_pictures_by_their_address(tmp_path: Path, below: str) -> None:
    picture(tmp_path / "pictures" / below)
    image: dict[str, Any] = {
        "id": 139, "height": 6, "width": 8, "neg_category_ids": [], "not_exhaustive_category_ids": [],
        "coco_url": "http://images.cocodataset.org/val2017/000000000139.png",
    }  # fmt: skip
    content = {
        "images": [{**image, "id": 1, "coco_url": "http://images.cocodataset.org/train2017/1.png"}, image],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [{"id": 1, "image_id": 139, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}],
    }
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    source = CocoPictures(str(tmp_path / "lvis_v1_val.json"), str(tmp_path / "pictures"))
    assert source.keys == ("train2017/1", "val2017/000000000139")
    assert [concept for concept, _ in source.read("val2017/000000000139").segments] == ["cup"]
    assert source.files("val2017/000000000139") == (tmp_path / "pictures" / below,)
    with pytest.raises(InputError, match=r"train2017/1\.png does not exist"):
        source.read("train2017/1")
    for nameless in ({"id": 1}, {"id": 1, "coco_url": ""}, {"id": 1, "coco_url": None}):
        (tmp_path / "bad.json").write_text(json.dumps({**content, "images": [nameless]}))
        with pytest.raises(InputError, match="not COCO's JSON"):
            CocoPictures(str(tmp_path / "bad.json"), str(tmp_path / "pictures"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../../../../../../../../etc/passwd"])
def test_a_name_that_leads_out_of_the_folder_does_not_say_where_pictures_lie(tmp_path: Path, name: str) -> None:
    file = coco_folder(tmp_path) / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    before = CocoPictures(str(file))
    content["images"].insert(0, {**content["images"][0], "id": 77, "file_name": name})
    file.write_text(json.dumps(content))
    source = CocoPictures(str(file))
    for key in before.keys:
        assert source.files(key) == before.files(key)
    (other,) = set(source.keys) - set(before.keys)
    with pytest.raises(InputError):
        source.read(other)


def test_an_annotation_that_is_listed_twice_is_one_thing(tmp_path: Path) -> None:
    file = coco_folder(tmp_path) / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    before = {key: len(CocoPictures(str(file)).read(key).segments) for key in ("1", "2")}
    content["annotations"] += content["annotations"][:2]
    file.write_text(json.dumps(content))
    assert {key: len(CocoPictures(str(file)).read(key).segments) for key in ("1", "2")} == before
    again = {**content["annotations"][0], "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
    content["annotations"].append(again)
    file.write_text(json.dumps(content))
    source = CocoPictures(str(file))
    assert sum(len(source.read(key).segments) for key in source.keys) == sum(before.values()) + 1, "of one id or not"
