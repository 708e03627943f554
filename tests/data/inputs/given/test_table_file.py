"""A table of pictures is heard as it is written: no column half, no text as something else, no row for its length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.table import TablePictures
from tests.data.inputs.given.folders import numbers, picture, rle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    for name in ("m", "n"):
        numbers(tmp_path / f"{name}.png", np.ones((6, 8)))
    return tmp_path


def csv(root: Path, text: str) -> TablePictures:
    (root / "t.csv").write_text(text)
    return TablePictures(str(root / "t.csv"))


def lines(root: Path, *rows: dict[str, Any]) -> TablePictures:
    (root / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TablePictures(str(root / "t.jsonl"))


def parquet(root: Path, **columns: Any) -> TablePictures:
    pq.write_table(pa.table(columns), root / "t.parquet")
    return TablePictures(str(root / "t.parquet"))


@pytest.mark.parametrize("name", ["image", "concept", "mask", "caption", "crowd"])
def test_a_column_that_is_there_twice_is_refused(root: Path, name: str) -> None:
    names = ["image", "concept", "mask", "caption", "crowd", name]
    row = {"image": "a.png", "concept": "dog", "mask": "m.png", "caption": "a dog", "crowd": "0"}
    with pytest.raises(InputError, match=f"has 2 columns '{name}'"):
        csv(root, f"{','.join(names)}\n{','.join(row[own] for own in names)}\n")
    table = pa.Table.from_arrays([pa.array([row[own]]) for own in names], names=names)
    pq.write_table(table, root / "t.parquet")
    with pytest.raises(InputError, match=f"has 2 columns '{name}'"):
        TablePictures(str(root / "t.parquet"))
    (root / "t.jsonl").write_text(json.dumps(row)[:-1] + f', "{name}": "x"}}\n')
    with pytest.raises(InputError, match="cannot be read"):
        TablePictures(str(root / "t.jsonl"))


@pytest.mark.parametrize("text", ["007", "2015-01-02", "2015-01-02 10:00:00", "true", "1e3", "10:30:00"])
def test_text_is_heard_as_it_is_written(root: Path, text: str) -> None:
    source = csv(root, f"image,concept,mask,caption\na.png,{text.replace(':', '')},m.png,{text}\n")
    assert (source.caption("a"), source.concepts) == (text, (text.replace(":", ""),))
    row = {"image": "a.png", "concept": text, "mask": rle(np.ones((6, 8), bool)), "caption": text, "asked": [text]}
    source = lines(root, row)
    assert (source.caption("a"), source.concepts, len(source.read("a").segments)) == (text, (text,), 1)
    for again in (csv(root, "image,concept,mask\n2015-01-02,dog,m.png\n"), lines(root, row | {"image": "2015-01-02"})):
        assert again.keys == ("2015-01-02",)


@pytest.mark.parametrize("caption", [7, True, 1.5])
def test_a_caption_is_text(root: Path, caption: Any) -> None:
    with pytest.raises(InputError, match=f"Row 1 of .* has the caption {caption}; a caption is text"):
        lines(root, {"image": "a.png", "concept": "dog", "mask": "m.png", "caption": caption})
    with pytest.raises(InputError, match=f"Row 1 of .* has the caption {caption}; a caption is text"):
        parquet(root, image=["a.png"], concept=["dog"], mask=["m.png"], caption=[caption])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("crowds", "crowd"), ("iscrowd", "crowd"), ("Crowd", "crowd"), ("captoin", "caption"), ("was_asked", "asked")],
)
def test_a_column_that_is_misspelt_is_not_passed_over(root: Path, name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"column '{name}', which nothing reads; call it '{meant}'"):
        csv(root, f"image,concept,mask,{name}\na.png,dog,m.png,1\n")
    assert csv(root, "image,concept,mask,area,image_id\na.png,dog,m.png,7,3\n").concepts == ("dog",)


def test_a_crowd_is_true_or_false(root: Path) -> None:
    for wrong in (float("nan"), 2, -1, 0.5):
        with pytest.raises(InputError, match=rf"Row 1 of .* has the crowd {wrong}; accepted: true, false, 1, 0"):
            parquet(root, image=["a.png"], concept=["dog"], mask=["m.png"], crowd=pa.array([wrong], from_pandas=False))
    for crowd, unasked in ((True, {"dog"}), (1.0, {"dog"}), (1, {"dog"}), (0.0, set()), (False, set()), (None, set())):
        source = parquet(root, image=["a.png"], concept=["dog"], mask=["m.png"], crowd=[crowd])
        assert source.read("a").unasked == unasked


def test_rows_are_read_whatever_their_length_and_number(root: Path) -> None:
    """Over a megabyte, the block that a reader guesses types from, and with line breaks in quoted text."""
    many = "".join(f'a.png,dog,m.png,"line one\nline two {i}",\n' for i in range(60_000))
    source = csv(root, f"image,concept,mask,caption,crowd\n{many}b.png,cat,m.png,,1\n")
    assert len(source.keys) == 2 and source.caption("a") == "line one\nline two 0"
    assert "cat" in source.uncertain, "a column that is empty for long has a type all the same"
    row = {"image": "a.png", "concept": "dog", "mask": "m.png"}
    assert lines(root, row | {"caption": "long " * 300_000}).caption("a").startswith("long long")


def test_a_row_that_is_there_twice_is_one_thing(root: Path) -> None:
    row = "a.png,dog,m.png\n"
    source = csv(root, f"image,concept,mask\n{row}a.png,dog,n.png\n{row}")
    assert len(source.read("a").segments) == 2
