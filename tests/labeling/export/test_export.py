"""Exports read back by the libraries of their formats: pycocotools, Pillow, pandas, and Label Studio's run lengths."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pycocotools.coco import COCO

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.config import PicturesConfig
from gazetteer.data.inputs.given.open import annotations_digest
from gazetteer.data.inputs.given.voc import VocPictures
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.labeling.export.coco import export_coco
from gazetteer.labeling.export.csv import export_csv
from gazetteer.labeling.export.labelstudio import brush_rle, export_labelstudio
from gazetteer.labeling.export.voc import export_voc
from gazetteer.labeling.tables import load_images, load_labels, load_segments
from tests.support.runs.runs import PROVENANCE, finished_run, parts
from tests.support.system.running import in_process


def masks_of(run: Path) -> dict[str, list[tuple[str, bytes]]]:
    """By image id the concepts and masks of a run."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for row in load_segments(run).to_pylist():
        found.setdefault(row["image_id"], []).append((row["concept"], struct_to_mask(row["mask"]).tobytes()))
    return {key: sorted(some) for key, some in found.items()}


def test_coco_json_is_the_run_to_pycocotools(scenes_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "c" / "instances_run.json"
    said = export_coco(RunFolder(scenes_run), file)
    theirs, truth = COCO(file), masks_of(scenes_run)
    images = {row["image_id"]: row for row in load_images(scenes_run).to_pylist()}
    assert said["images"] == len(images) == len(theirs.imgs) and said["segments"] == len(theirs.anns) > 0
    for image in theirs.imgs.values():
        row = images[Path(image["file_name"]).stem]
        stored = np.array(Image.open(file.parent / "images" / image["file_name"]))
        np.testing.assert_array_equal(stored, decode_image(row["image"]["bytes"]))
        anns = theirs.loadAnns(theirs.getAnnIds(imgIds=image["id"]))
        mine = sorted((theirs.cats[a["category_id"]]["name"], theirs.annToMask(a).astype(bool).tobytes()) for a in anns)
        assert mine == truth.get(row["image_id"], [])
        for one in anns:
            rows, columns = np.nonzero(mask := theirs.annToMask(one))
            assert one["area"] == mask.sum()
            ends = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert one["bbox"] == ends and len(one["detector_box"]) == 4
    back = CocoPictures(str(file))
    for key in back.keys:
        found = back.read(key)
        assert sorted((c, m.tobytes()) for c, m in found.segments) == truth.get(key, [])
        assert back.caption(key) == images[key]["prompt"] and not found.unasked


def test_a_voc_folder_holds_the_smallest_segment_of_every_pixel(scenes_run: Path, tmp_path: Path) -> None:
    said = export_voc(RunFolder(scenes_run), tmp_path / "voc")
    back, rows = VocPictures(str(tmp_path / "voc"), "discovery"), load_segments(scenes_run).to_pylist()
    assert set(back.keys) == set(load_images(scenes_run, split="discovery")["image_id"].to_pylist())
    for key in back.keys:
        mine = sorted((row for row in rows if row["image_id"] == key), key=lambda row: (-row["area"], row["concept"]))
        painted = np.zeros(back.read(key).image.shape[:2], object)
        for row in mine:
            painted[struct_to_mask(row["mask"])] = row["concept"]
        for concept in {name for name in painted.ravel() if name}:
            union = np.any([mask for name, mask in back.read(key).segments if name == concept], axis=0)
            np.testing.assert_array_equal(union, painted == concept)
        boxes = ElementTree.parse(tmp_path / "voc" / "Annotations" / f"{key}.xml").findall("object")
        assert sorted(box.findtext("name") or "" for box in boxes) == sorted(row["concept"] for row in mine)
    assert said["overlapping"] > 0
    with pytest.raises(InputError, match="holds files; name a new one"):
        export_voc(RunFolder(scenes_run), tmp_path / "voc")


def test_a_voc_folder_says_what_was_asked(tmp_path: Path) -> None:
    """Neither what was not asked nor what others hide wholly is read back as asked and absent."""
    run, rows = RunFolder(tmp_path / "run").open_or_create({"config": "abc"}), [parts(number) for number in range(3)]
    names = pa.array([["dog"]], rows[0]["images"].schema.field("asked").type)
    rows[0]["images"] = rows[0]["images"].set_column(7, rows[0]["images"].schema.field("asked"), names)
    (segment,) = rows[2]["segments"].to_pylist()
    both = [segment, {**segment, "concept": "cat"}]  # one lies below the other
    rows[2]["segments"] = pa.Table.from_pylist(both, schema=rows[2]["segments"].schema)
    for number, tables in enumerate(rows):
        run.commit_shard(f"s{number}", tables, {}, PROVENANCE)
    run.finish({"shards": ["s0", "s1", "s2"]})
    assert export_voc(run, tmp_path / "voc")["hidden"] == 1
    back = VocPictures(str(tmp_path / "voc"))
    assert back.concepts == ("cat", "dog") and back.uncertain == {"cat"}
    assert [back.read(key).unasked for key in ("i0", "i1", "i2")] == [{"cat"}, set(), {"cat"}]
    assert [[concept for concept, _ in back.read(key).segments] for key in back.keys] == [["dog"]] * 3
    digest = annotations_digest(PicturesConfig(voc=str(tmp_path / "voc")))
    (tmp_path / "voc" / "asked.json").write_text('{"i0": []}')
    assert annotations_digest(PicturesConfig(voc=str(tmp_path / "voc"))) != digest
    for wrong in ('{"i0": 3}', '{"i0": "dog"}', '{"i0": [3]}', "[]", "3", "{"):
        (tmp_path / "voc" / "asked.json").write_text(wrong)
        with pytest.raises(InputError, match=r"asked\.json is not JSON that lists for every picture what was asked"):
            VocPictures(str(tmp_path / "voc"))


def unpacked(stream: list[int]) -> np.ndarray:
    """Label Studio's run lengths read as its own decoder does."""
    bits, at = "".join(f"{byte:08b}" for byte in stream), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    size, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < size:
        repeats, length = take(1), take(sizes[take(2)]) + 1
        out += [take(word)] * length if repeats else [take(word) for _ in range(length)]
    return np.array(out, np.uint8)


def test_label_studio_tasks_hold_every_mask(scenes_run: Path, tmp_path: Path) -> None:
    said = export_labelstudio(RunFolder(scenes_run), tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    truth = masks_of(scenes_run)
    assert said["images"] == len(tasks) == 16
    for task in tasks:
        mine = []
        for result in task["predictions"][0]["result"]:
            shape = (result["original_height"], result["original_width"], 4)
            mask = unpacked(result["value"]["rle"]).reshape(shape)[..., 3] > 0
            mine.append((result["value"]["brushlabels"][0], mask.tobytes()))
        assert sorted(mine) == truth.get(task["data"]["image_id"], [])
        assert task["data"]["image"].startswith("data:image/png;base64,")
    labels = {one.get("value") for one in ElementTree.parse(tmp_path / "tasks.xml").iter("Label")}
    assert {"sky", "dog"} <= labels
    long = np.zeros((200, 200), bool)
    long[3:150] = True
    np.testing.assert_array_equal(unpacked(brush_rle(long)).reshape(200, 200, 4)[..., 0] > 0, long)


def test_csv_has_the_scalar_columns(scenes_run: Path, tmp_path: Path) -> None:
    said = export_csv(RunFolder(scenes_run), tmp_path / "images.csv", "images")
    frame = pd.read_csv(tmp_path / "images.csv")
    assert list(frame["prompt"]) == load_images(scenes_run)["prompt"].to_pylist()
    assert said["left_out"] == ["image", "asked", "words"] and set(frame.columns) == set(said["columns"])
    export_csv(RunFolder(scenes_run), tmp_path / "labels.csv")
    assert len(pd.read_csv(tmp_path / "labels.csv")) == load_labels(scenes_run).num_rows
    with pytest.raises(InputError, match="no table 'codes'"):
        export_csv(RunFolder(scenes_run), tmp_path / "c.csv", "codes")


def test_the_command_writes_what_was_asked(scenes_run: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "run.json", tmp_path / "v"
    done = in_process("export", str(scenes_run), "--coco", str(file), "--no-pictures", "--voc", str(folder), "--json")
    assert done.returncode == 0 and file.is_file() and not (tmp_path / "images").exists()
    said = json.loads(done.stdout)
    assert [next(iter(one)) for one in said["written"]] == ["coco", "voc"]
    for words, sentence in (
        ([str(scenes_run)], "Say what to write"),
        ([str(scenes_run), "--coco", str(tmp_path / "x.txt")], "names a JSON file"),
        ([str(tmp_path), "--csv", str(tmp_path / "x.csv")], "not a finished run"),
    ):
        wrong = in_process("export", *words)
        assert wrong.returncode == 2 and sentence in wrong.stderr


def test_that_a_folder_is_made_is_said(scenes_run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    done = in_process("export", str(scenes_run), "--csv", str(new / "x.csv"))
    assert done.returncode == 0 and f"{new} is not there, and is made." in done.stderr.splitlines()
    again = in_process("export", str(scenes_run), "--csv", str(new / "y.csv"))
    assert again.returncode == 0 and "is made" not in again.stderr


@pytest.mark.parametrize(
    ("option", "name", "there"),
    [
        ("--csv", "x.csv", "x.csv"), ("--coco", "x.json", "x.json"), ("--coco", "instances_x.json", "captions_x.json"),
        ("--labelstudio", "x.json", "x.json"), ("--labelstudio", "x.json", "x.xml"), ("--voc", "v", "v"),
    ],
)  # fmt: skip
def test_nothing_is_written_over(scenes_run: Path, tmp_path: Path, option: str, name: str, there: str) -> None:
    (tmp_path / there).write_text("mine")
    wrong = in_process("export", str(scenes_run), option, str(tmp_path / name))
    assert wrong.returncode == 2 and str(tmp_path / there) in wrong.stderr and "new" in wrong.stderr
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(there, "mine")]


@pytest.mark.parametrize(("option", "name"), [("--csv", "x.csv"), ("--coco", "x.json"), ("--voc", "x")])
def test_a_place_below_a_file_is_refused(scenes_run: Path, tmp_path: Path, option: str, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / name, tmp_path / "file" / "folder" / name):
        wrong = in_process("export", str(scenes_run), option, str(place))
        assert wrong.returncode == 2 and f"{place} cannot be written" in wrong.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_coco_replaces_nobody_elses_picture(scenes_run: Path, tmp_path: Path) -> None:
    export_coco(RunFolder(scenes_run), tmp_path / "a.json")
    export_coco(RunFolder(scenes_run), tmp_path / "b.json")  # the same pictures may lie there already
    theirs = sorted((tmp_path / "images").iterdir())[-1]
    theirs.write_bytes(b"theirs")
    with pytest.raises(InputError, match=rf"{theirs.name} is there already and is another picture"):
        export_coco(RunFolder(scenes_run), tmp_path / "c.json")
    assert theirs.read_bytes() == b"theirs" and not (tmp_path / "c.json").exists()


def test_nothing_is_written_among_the_runs_own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished_run("run")
    (tmp_path / "link").symlink_to("run")
    before = sorted(tmp_path.rglob("*"))
    for write in (
        lambda: export_coco(run, "run/coco.json"),  # its pictures go into images/ beside it
        lambda: export_coco(run, "link/../link/coco.json"),
        lambda: export_coco(run, "run/segments/coco.json", pictures=False),
        lambda: export_voc(run, "run/images/voc"),
        lambda: export_csv(run, "link/images/labels.csv"),
        lambda: export_labelstudio(run, "run/_meta/tasks.json"),
    ):
        with pytest.raises(InputError, match="of the run run itself"):
            write()
    assert sorted(tmp_path.rglob("*")) == before
