"""A table of masks says the same however it is written: as rows of a file, or as another run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.table import TablePictures
from tests.data.inputs.given.folders import numbers, picture, rle
from tests.support.runs.runs import PROVENANCE, finished_run, parts


def table(root: Path, *rows: dict[str, Any]) -> TablePictures:
    pq.write_table(pa.Table.from_pylist(list(rows)), root / "t.parquet")
    return TablePictures(str(root / "t.parquet"))


def test_what_was_asked_is_named_as_concepts_are_and_said_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    numbers(tmp_path / "m.png", np.ones((6, 8)))
    dog, cat = ({"image": "a.png", "mask": "m.png", "concept": name} for name in ("Hot_Dog", "Cat"))
    source = table(tmp_path, dog | {"asked": None}, cat | {"asked": ["Hot_Dog", "Cat"]}, {"image": "b.png"})
    assert [concept for concept, _ in source.read("a").segments] == ["hot dog", "cat"]
    assert not source.uncertain
    source = table(tmp_path, dog | {"asked": ["Hot_Dog"]}, {"image": "b.png", "mask": "m.png", "concept": "cat"})
    assert source.read("a").unasked == {"cat"}
    with pytest.raises(InputError, match="rows of the picture a differ in the concepts"):
        table(tmp_path, dog | {"asked": ["hot dog"]}, cat | {"asked": ["cat"]})


def test_names_that_differ_in_their_code_points_alone_are_one(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    numbers(tmp_path / "m.png", np.ones((6, 8)))
    names = ("Caf\u00e9", "Cafe\u0301", "\uff23\uff41f\u00e9")  # composed, decomposed, of full width
    source = table(tmp_path, *({"image": "a.png", "mask": "m.png", "concept": name} for name in names))
    assert source.concepts == ("caf\u00e9",)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_picture_is_read_alike_from_a_file_and_from_a_column(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels, stream = picture(tmp_path / "a.png"), io.BytesIO()  # 6 x 8
    Image.fromarray(pixels).save(stream, format="PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    turned = np.rot90(pixels, 2) if orientation == 3 else np.rot90(pixels, -1)
    for image in ("a.png", {"bytes": stream.getvalue(), "path": "a.png"}):
        for size, seen in ((turned.shape[:2], turned), ((6, 8), turned if orientation == 3 else pixels)):
            source = table(tmp_path, {"image": image, "concept": "sky", "mask": rle(np.ones(size, bool))})
            assert np.array_equal(source.read("a").image, seen)


def test_a_run_that_is_under_way_is_no_table(tmp_path: Path) -> None:
    """A part that no record names, or a shard whose segments are yet to come, would show pictures of nothing."""
    run = finished_run(tmp_path / "run")
    source = TablePictures(run.path)
    stray = Path(run.path, "images", "part-stray.parquet")
    pq.write_table(parts(7)["images"], stray)
    assert TablePictures(run.path).keys == source.keys
    run.clear_success()
    run.commit_shard("s2", parts(2), {}, PROVENANCE)
    with pytest.raises(InputError, match="not a finished run"):
        TablePictures(run.path)


def test_a_folder_of_tables_has_its_pictures_inside_each_once(tmp_path: Path) -> None:
    row = {"image_id": "a", "prompt": "", "asked": ["dog"]}
    for name in ("images", "segments"):
        (tmp_path / name).mkdir()
    segments = pa.Table.from_pylist([{"image_id": "a", "concept": "dog", "mask": None}])
    pq.write_table(segments, tmp_path / "segments" / "part.parquet")
    for contents, says in (([None], "no bytes of the picture a"), ([b"1", b"2"], "holds the picture a twice")):
        rows = [row | {"image": {"bytes": content, "path": "a.png"}} for content in contents]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "images" / "part.parquet")
        with pytest.raises(InputError, match=says):
            TablePictures(str(tmp_path))


def test_a_mask_is_no_jpeg_whose_black_is_not_black(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 64, 64)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 10:40] = np.tri(30) * 255
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=90)
    assert (np.asarray(Image.open(tmp_path / "m.jpg")) > 0).sum() > 1.1 * (mask > 0).sum()
    with pytest.raises(InputError, match="is a JPEG, which changes the numbers"):
        table(tmp_path, {"image": "a.png", "concept": "sky", "mask": "m.jpg"}).read("a")
