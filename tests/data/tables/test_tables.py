"""A run's tables: one line in every common reader, one line and a sentence in ours, every column documented."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from gazetteer import load_features, load_labels
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.reading import at_t
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.data.tables.schemas import CAUSAL, COMPONENTS, EXAMINERS, FINAL_TABLES, PART_TABLES
from gazetteer.labeling.tables import load_candidates, load_causal, load_images, load_segments
from tests.support.runs.runs import SITE, finished_run, picture

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs") / "run").path


# One line in every reader, with no Gazetteer.


@pytest.mark.parametrize("table", ["images", "codes", "segments"])
def test_parts_open_in_every_reader(run, table):
    want = ["i0", "i1"]
    assert pd.read_parquet(f"{run}/{table}").image_id.tolist() == want
    assert pl.read_parquet(f"{run}/{table}")["image_id"].to_list() == want
    assert pl.scan_parquet(f"{run}/{table}/*.parquet").collect()["image_id"].to_list() == want
    assert sorted(duckdb.sql(f"select image_id from '{run}/{table}/*.parquet'").fetchall()) == [("i0",), ("i1",)]
    assert ds.dataset(f"{run}/{table}").to_table()["image_id"].to_pylist() == want
    assert pq.read_table(f"{run}/{table}")["image_id"].to_pylist() == want


@pytest.mark.parametrize("table", ["labels", "candidates", "features"])
def test_final_tables_open_in_every_reader(run, table):
    rows = RunFolder(run).read_final(table).num_rows
    assert rows > 0
    path = f"{run}/{table}.parquet"
    assert len(pd.read_parquet(path)) == rows
    assert pl.read_parquet(path).height == rows
    assert duckdb.sql(f"select count(*) from '{path}'").fetchall() == [(rows,)]
    assert pq.read_table(path).num_rows == rows
    assert datasets.Dataset.from_parquet(path).num_rows == rows


def test_images_are_pictures_in_hugging_face_datasets(run, tmp_path):
    images = datasets.load_dataset("parquet", data_files=f"{run}/images/*.parquet", split="train", cache_dir=tmp_path)
    assert isinstance(images.features["image"], datasets.Image)  # said by the file itself
    for number, row in enumerate(images):
        assert np.array_equal(np.asarray(row["image"]), picture(number))
    again = images.cast_column("image", datasets.Image())
    assert again[0]["image"].size == (12, 8)


def test_codes_keep_their_half_precision_values_in_every_reader(run):
    want = [1.5, 0.25, 0.5, 0.0]
    assert list(map(float, pd.read_parquet(f"{run}/codes").value[0])) == want
    assert list(map(float, pl.read_parquet(f"{run}/codes")["value"][0])) == want
    found = duckdb.sql(f"select value from '{run}/codes/*.parquet'").fetchall()
    assert list(map(float, found[0][0])) == want


def test_masks_decode_in_pycocotools_and_here(run):
    for row in pq.read_table(f"{run}/segments").to_pylist():
        mask = coco.decode(row["mask"])
        assert mask.sum() == row["area"] == 12
        assert np.array_equal(mask, struct_to_mask(row["mask"]))


# Ours.


def keys(table):
    return list(zip(table["feature"].to_pylist(), table["concept"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ({}, [(1, "dog"), (1, "cat"), (1, "sky")]),
        ({"t": 0.3}, [(1, "dog"), (1, "cat")]),  # kept as float32, where 0.3 is another number
        ({"t": np.float32(0.3)}, [(1, "dog"), (1, "cat")]),
        ({"t": 1}, [(1, "sky")]),
        ({"block": SITE["block"], "branch": "cond"}, [(1, "dog"), (1, "cat"), (1, "sky")]),
        ({"concept": "dog"}, [(1, "dog")]),
        ({"concept": ["cat", "sky"]}, [(1, "cat"), (1, "sky")]),
        ({"feature": 2}, []),
        ({"max_q": 0.01}, [(1, "dog"), (1, "sky")]),
        ({"min_iou": 0.4}, [(1, "dog"), (1, "sky")]),
        ({"min_iou": 0.4, "t": 0.3}, [(1, "dog")]),
    ],
)
def test_labels_by_question(run, asked, want):
    labels = load_labels(run, **asked)
    assert keys(labels) == want
    assert labels.schema == FINAL_TABLES["labels"]


def test_candidates_features_segments_and_images(run):
    assert keys(load_candidates(run, trusted=False)) == [(2, "dog")]
    assert load_candidates(run, t=0.3, paper_label=True).num_rows == 0
    assert load_features(run, **SITE, t=0.3, labelled=True)["feature"].to_pylist() == [1]
    assert load_features(run, labelled=False)["feature"].to_pylist() == [2]
    for asked, want in (
        ({"concept": "dog"}, [1]), ({"concept": ["cat", "dog"]}, [1]), ({"concept": "cat"}, []),
        ({"max_q": 0.001}, [1]), ({"max_q": 0.0001}, []), ({"max_q": 1.0}, [1]),
    ):  # fmt: skip
        assert load_features(run, **asked)["feature"].to_pylist() == want, asked
    assert load_features(run, feature=1)["top_images"].to_pylist()[0][0]["image_id"] == "i0"
    assert load_segments(run, concept="dog", min_score=0.5)["image_id"].to_pylist() == ["i1"]
    assert load_segments(run, image_id=["i0", "zz"])["score"].to_pylist() == [0.25]
    images = load_images(run, split="heldout")
    assert images["image_id"].to_pylist() == ["i1"]
    assert np.array_equal(decode_image(images["image"].to_pylist()[0]["bytes"]), picture(1))


def test_filters_reach_the_parquet_reader(run, monkeypatch):
    """Rows are left out while the file is read, not afterwards."""
    read, seen = pq.read_table, []

    def spy(source, **options):
        table = read(source, **options)
        seen.append((Path(source).stem, options["filters"], table.num_rows))
        return table

    monkeypatch.setattr("gazetteer.data.runs.reading.pq.read_table", spy)
    load_labels(run, concept="dog", max_q=0.01)
    load_features(run, concept=["dog"], max_q=0.01)
    load_candidates(run, t=1.0, trusted=True)
    near = at_t(1.0)
    wanted = [
        ("labels", (pc.field("concept") == "dog") & (pc.field("q_value") <= 0.01)),
        ("features", pc.field("best_label").isin(pa.array(["dog"])) & (pc.field("best_q_value") <= 0.01)),
        ("candidates", near & (pc.field("trusted") == True)),  # noqa: E712
    ]
    assert [name for name, _, _ in seen] == [name for name, _ in wanted]
    for (_, found, rows), (name, want) in zip(seen, wanted, strict=True):
        assert found.equals(want), name
        assert rows == 1, name


def test_columns_can_be_chosen_and_an_open_run_passed(run):
    labels = load_labels(RunFolder(run), concept="dog", columns=["feature", "dataset_iou"])
    assert labels.to_pylist() == [{"feature": 1, "dataset_iou": 0.6}]
    assert load_images(Path(run), columns=["seed"]).to_pylist() == [{"seed": 0}, {"seed": 1}]


def test_mistakes_get_a_sentence(run, tmp_path):
    for ask, says in [
        (
            lambda: load_labels(tmp_path / "none"),
            "none is not a finished run: there is no such folder",
        ),
        (lambda: load_segments(tmp_path), "is not a run"),
        (lambda: load_labels(run, columns=["iou"]), "labels has no column 'iou'; it has model"),
        (lambda: load_images(run, columns=["pixels"]), "images has no column 'pixels'"),
    ]:
        with pytest.raises(InputError, match=says):
            ask()


def test_a_damaged_table_gets_a_sentence(tmp_path):
    run = finished_run(tmp_path / "run")
    for name, content in (("labels.parquet", b"PAR1"), ("features.parquet", b"")):
        (tmp_path / "run" / name).write_bytes(content)
    for load, name in ((load_labels, "labels"), (load_features, "features")):
        with pytest.raises(InputError, match=f"{name}.parquet is missing or corrupt.*run gazetteer label again"):
            load(run)


def test_reading_tables_imports_no_model_library():
    heavy = "{'torch', 'diffusers', 'transformers', 'ray', 'pandas', 'PIL'}"
    script = f"import sys; from gazetteer import load_labels, load_features; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# The documentation.


def documented():
    """{table: its columns} of the page on tables: a heading `## name`, then rows that start with a column in ticks.

    What stands below a smaller heading is no part of the table.
    """
    found, columns = {}, []
    for line in (ROOT / "docs/reference/tables.md").read_text().splitlines():
        if heading := re.match(r"## `(\w+)", line):
            columns = found.setdefault(heading[1], [])
        elif line.startswith("### "):
            columns = []
        elif line.startswith("| `"):
            columns += re.findall(r"`(\w+)`", line.split("|")[1])
    return found


def test_every_column_is_documented_and_nothing_else():
    tables = {**PART_TABLES, **FINAL_TABLES, "components": COMPONENTS, "causal": CAUSAL, "examiners": EXAMINERS}
    found = documented()
    assert set(found) == set(tables)
    for name, schema in tables.items():
        if name == "labels":  # all of candidates but the flag
            continue
        assert found[name] == schema.names, name


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"t": 0.31}, "has no t 0.31; did you mean 0.3. it has: 0.3"),
        ({"branch": "uncond"}, "has no branch .uncond.; did you mean cond. it has: cond"),
        ({"block": "mid_block.attentions.00"}, "did you mean mid_block.attentions.0"),
        ({"concept": "unicorn"}, "was never asked for 'unicorn'; it has: cat, dog, sky"),
        ({"concept": ["dog", "Skye"]}, "never asked for 'Skye'; did you mean sky"),
        ({"feature": 9}, "has no feature 9"),
        *(({name: float("nan")}, f"{name} must be a finite number, not nan") for name in ("t", "max_q", "min_iou")),
        ({"max_q": "x"}, "max_q must be a finite number, not 'x'"),
        ({"feature": 1.5}, "feature must be a whole number"),
        ({"causal": "yes"}, "causal must be True or False, not 'yes'"),
        ({"block": 3}, "block must be text, not 3"),
        *(({"kind": kind}, "no kind of label .*; accepted: thing, stuff, part, scene") for kind in ("thng", "", [])),
        ({"concept": 3}, "concept must be text or a list of texts, not 3"),
        ({"concept": []}, r"concept must name something, not \[\]; without it every concept is meant"),
        ({"concept": ["dog", ""]}, "concept must name something"),
        ({"columns": []}, "columns must be a list with at least one"),
        ({"columns": "concept"}, "columns must be a list"),
    ],
)
def test_what_cannot_be_asked_or_is_not_there_is_no_empty_answer(
    run: Path, asked: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        load_labels(run, **asked)


@pytest.mark.parametrize("typed", ["Dogs", "DOG", "dogs", ["Dog", "dogs"]])
def test_a_concept_in_capitals_or_the_plural_is_meant(run: Path, typed: str | list[str]) -> None:
    meant = load_candidates(run, concept="dog")
    assert meant.num_rows and load_candidates(run, concept=typed).equals(meant)
    assert load_labels(run, concept=typed).equals(load_labels(run, concept="dog"))


def test_other_tables_are_asked_alike(run: Path) -> None:
    with pytest.raises(InputError, match="min_score must be a finite number"):
        load_segments(run, min_score=float("nan"))
    with pytest.raises(InputError, match="labelled must be True or False"):
        load_features(run, labelled="yes")
    with pytest.raises(InputError, match="A run is a folder or a URL, not None"):
        load_labels(None)


@pytest.mark.parametrize(
    ("load", "asked", "says"),
    [
        (load_images, {"split": "train"}, "no split 'train'; accepted: discovery, heldout"),
        (load_images, {"image_id": "i00"}, "has no picture 'i00'"),
        (load_segments, {"image_id": ["i00"]}, "has no picture 'i00'"),
        (load_causal, {"verdict": "confirmd"}, "no verdict 'confirmd'; accepted: confirmed, contradicted"),
    ],
)
def test_a_side_a_picture_or_a_verdict_that_there_is_not_is_no_empty_answer(
    run: Path, load: Callable[..., pa.Table], asked: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        load(run, **asked)


def test_numbers_of_an_array_are_numbers(run: Path) -> None:
    assert load_labels(run, feature=np.int32(1)).equals(load_labels(run, feature=1))
    assert load_labels(run, t=np.float32(0.3), concept="sky").num_rows == 0  # a site and a concept that there are
