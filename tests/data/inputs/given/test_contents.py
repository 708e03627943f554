"""What lies in given pictures' files is written down once and held to; what failed may be mended."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given import contents
from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.data.inputs.given.contents import keep_contents, recorded
from gazetteer.data.inputs.given.open import GivenSet, annotations_digest
from gazetteer.data.inputs.given.picture import BadPicture
from gazetteer.data.runs.folder import RunFolder
from tests.data.inputs.given.folders import ade_folder, coco_folder, numbers, picture
from tests.support.runs.runs import PROVENANCE, parts


def every_layout(root: Path) -> dict[str, tuple[PicturesConfig, list[Path], list[Path]]]:
    """By layout: its settings, pictures with their masks, and what says what is in all of them."""
    coco, ade, voc, table = (root / name for name in ("coco", "ade", "voc", "table"))
    coco_folder(coco)
    ade_folder(ade)
    for folder in ("SegmentationClass", "SegmentationObject"):
        numbers(voc / folder / "a.png", np.ones((6, 8)))
    picture(voc / "JPEGImages" / "a.png")
    (voc / "class_names.txt").write_text("dog\n")
    picture(table / "a.png")
    numbers(table / "m.png", np.ones((6, 8)))
    (table / "t.csv").write_text("image,concept,mask\na.png,dog,m.png\n")
    annotations = [coco / "annotations" / f"{kind}_val2017.json" for kind in ("instances", "stuff", "captions")]
    return {
        "coco": (PicturesConfig(coco=str(coco)), [coco / "val2017" / "1.png"], annotations),
        "one file": (PicturesConfig(coco=str(annotations[0])), [coco / "val2017" / "2.png"], annotations),
        "ade20k": (
            PicturesConfig(ade20k=str(ade), split="training"),
            [ade / folder / "training" / "a.png" for folder in ("images", "annotations")],
            [ade / "objectInfo150.txt"],
        ),
        "voc": (
            PicturesConfig(voc=str(voc)),
            [voc / folder / "a.png" for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject")],
            [voc / "class_names.txt"],
        ),
        "table": (PicturesConfig(table=str(table / "t.csv")), [table / "a.png", table / "m.png"], [table / "t.csv"]),
    }


@pytest.mark.parametrize("layout", ["coco", "one file", "ade20k", "voc", "table"])
def test_every_file_that_is_read_is_held_to(tmp_path: Path, layout: str) -> None:
    """Of what is said of all pictures the digest changes; of a picture's own files the picture is refused."""
    config, own, annotations = every_layout(tmp_path)[layout]
    run = RunFolder(tmp_path / "run").open_or_create({"config": "abc"})
    given, digest = GivenSet(config, 0), annotations_digest(config)
    items = given.items(9, "f")
    keep_contents(run, items, given.files, ())
    run.commit_shard("s0", parts(0), {}, PROVENANCE)
    first = recorded(run)
    (item,) = [item for item in items if own[0] in given.files(item)]
    assert given.files(item) == tuple(own) and first[item.image_id]
    for file in own:
        whole, stat = file.read_bytes(), file.stat()
        file.write_bytes(whole + b"\0")
        assert annotations_digest(config) == digest, "one picture may be mended"
        with pytest.raises(InputError, match=rf"{own[0]}.* is not what this run was started with"):
            keep_contents(run, items, given.files, ())
        with pytest.raises(InputError, match="is not what this run was started with"):
            given.read(item, first[item.image_id])
        keep_contents(run, items, given.files, [item.image_id])
        assert recorded(run)[item.image_id] != first[item.image_id]
        file.write_bytes(whole)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        keep_contents(run, items, given.files, [item.image_id])
        assert recorded(run) == first and given.read(item, first[item.image_id])
    for file in annotations:
        whole = file.read_bytes()
        file.write_bytes(whole + b"\n")
        assert annotations_digest(config) != digest
        file.write_bytes(whole)
    assert annotations_digest(config) == digest


def test_files_are_digested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, own, _ = every_layout(tmp_path)["voc"]
    run = RunFolder(tmp_path / "run").open_or_create({"config": "abc"})
    given = GivenSet(config, 0)
    items, read = given.items(9, "f"), list[Path]()
    digest_file = contents.digest_file
    monkeypatch.setattr(contents, "digest_file", lambda file: read.append(file) or digest_file(file))
    keep_contents(run, items, given.files, ())
    run.commit_shard("s0", parts(0), {}, PROVENANCE)
    keep_contents(run, items, given.files, ())
    assert read == own
    os.utime(own[1], ns=(0, 0))
    keep_contents(run, items, given.files, ())
    assert read == own * 2, "a picture of another time is read again, and is the same"


def test_before_the_first_shard_pictures_may_change_and_what_is_missing_may_come(tmp_path: Path) -> None:
    config, own, _ = every_layout(tmp_path)["ade20k"]
    run = RunFolder(tmp_path / "run").open_or_create({"config": "abc"})
    given = GivenSet(config, 0)
    (item,) = items = given.items(9, "f")
    content = own[0].read_bytes()
    keep_contents(run, items, given.files, ())
    own[0].unlink()
    keep_contents(run, items, given.files, ())
    assert recorded(run) == {item.image_id: ""}
    with pytest.raises(BadPicture, match="has no picture training/a"):
        given.read(item, recorded(run)[item.image_id])
    run.commit_shard("s0", parts(0), {}, PROVENANCE)
    own[0].with_suffix(".jpg").write_bytes(content)
    keep_contents(run, items, given.files, ())
    assert recorded(run)[item.image_id] and given.read(item, recorded(run)[item.image_id])


def test_a_bad_picture_is_no_fault_of_the_input_and_one_that_is_gone_from_the_list_is(tmp_path: Path) -> None:
    config, own, _ = every_layout(tmp_path)["voc"]
    given = GivenSet(config, 0)
    (item,) = given.items(9, "f")
    for file in own:
        whole = file.read_bytes()
        file.write_bytes(whole[:40])
        with pytest.raises(BadPicture, match=r"a\.png"):
            given.read(item)
        file.write_bytes(whole)
    with pytest.raises(InputError, match="not among the given ones any more"):
        given.read(GivenSet(config, 1).items(9, "f")[0])


@pytest.mark.parametrize("said", ["[]", "3", "null", '{"a": 3}', '{"a": "xy"}', '{"a": ["x"]}', '{"a": [3, null]}'])
def test_a_record_of_another_shape_is_refused(tmp_path: Path, said: str) -> None:
    run = RunFolder(tmp_path).open_or_create({"seed": 1})
    (tmp_path / "_meta/given.json").write_text(said)
    with pytest.raises(InputError, match=r"_meta/given\.json (is corrupt|does not say what lay)"):
        contents.recorded(run)
