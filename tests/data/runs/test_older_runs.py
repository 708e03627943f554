"""Runs written before tables named streams and signals read as what they were about: updates of the image stream."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS
from gazetteer.data.runs.reading import rows
from gazetteer.data.tables.schemas import CODES, FINAL_TABLES, IMAGES, LABELLING_TABLES, before_streams
from gazetteer.labeling.tables import load_features, load_labels
from tests.support.runs.runs import finished_run, parts

SITED = ["stream", "signal"]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A codes part as schema 3 wrote it."""
    path = tmp_path / "part-a.parquet"
    pq.write_table(parts(0)["codes"].drop_columns(SITED), path)
    return path


def test_absent_columns_are_filled_in_every_row_in_their_place(older: Path) -> None:
    found = rows(str(older), CODES, None, None)
    assert found.schema.equals(CODES) and found.num_rows == parts(0)["codes"].num_rows
    assert found.equals(parts(0)["codes"].cast(CODES))
    assert rows(str(older), CODES, ["signal", "t"], None).column_names == ["signal", "t"]


@pytest.mark.parametrize("filter", [pc.field("signal") == "update", [("signal", "==", "update"), ("t", ">", 0.1)]])
def test_filters_see_the_absent_columns(older: Path, filter: object) -> None:
    assert rows(str(older), CODES, list(SITE_COLUMNS), filter).num_rows == 1
    assert rows(str(older), CODES, ["image_id"], pc.field("signal") == "output").num_rows == 0
    assert rows(str(older), CODES, ["image_id"], (pc.field("stream") == "text") & (pc.field("t") > 0)).num_rows == 0


def test_open_files_are_read_as_paths_are(older: Path) -> None:
    with older.open("rb") as file:
        assert rows(file, CODES, None, None).equals(rows(str(older), CODES, None, None))
    assert rows(pa.BufferReader(older.read_bytes()), CODES, ["stream"], None)["stream"].to_pylist() == ["image"]


def test_final_tables_of_an_older_run_can_be_asked_by_site(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    for name in ("labels", "features"):
        path = tmp_path / "run" / f"{name}.parquet"
        pq.write_table(pq.read_table(path).drop_columns(SITED), path)
    with pytest.raises(InputError, match="has no stream 'text'; it has: image"):
        load_labels(run, stream="text")
    with pytest.raises(InputError, match="has no signal 'output'; it has: update"):
        load_features(run, signal="output")
    assert load_labels(run, stream="image", signal="update").num_rows == load_labels(run).num_rows > 0
    assert load_labels(run).schema.equals(FINAL_TABLES["labels"])


def test_an_older_schema_lacks_these_columns_alone() -> None:
    for name, schema in {**LABELLING_TABLES, **FINAL_TABLES}.items():
        fewer = 1 if name == "images" else 2 if "block" in schema.names else 0
        assert len(schema) - len(before_streams(schema)) == fewer, name


def test_pictures_of_a_run_that_knew_no_words_have_none(tmp_path: Path) -> None:
    path = tmp_path / "part-a.parquet"
    pq.write_table(parts(0)["images"].drop_columns(["words"]), path)
    found = rows(str(path), IMAGES, None, None)
    assert found.schema.equals(IMAGES) and found["words"].null_count == found.num_rows > 0
    assert rows(str(path), IMAGES, ["words", "seed"], pc.field("seed") >= 0).column_names == ["words", "seed"]
