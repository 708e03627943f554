"""Every table of a run, empty parts among its parts, is read by whatever people read Parquet with."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.publish import parquet_bytes
from gazetteer.data.tables.schemas import CAUSAL, COMPONENTS, FINAL_TABLES, PART_TABLES
from gazetteer.labeling.tables import load_labels
from tests.support.runs.runs import blank, finished_run

TABLES = {**PART_TABLES, **FINAL_TABLES, "causal": CAUSAL, "components": COMPONENTS}


def with_datasets(files: list[str]) -> int:
    import datasets

    datasets.disable_progress_bars()
    if pq.read_table(files[0], partitioning=None).num_rows == len(files[1:]) == 0:
        with pytest.raises(ValueError, match="corresponds to no data"):  # it makes no data set without rows, ever
            datasets.load_dataset("parquet", data_files=files, split="train")
        return 0
    return int(datasets.load_dataset("parquet", data_files=files, split="train").num_rows)


def with_datasets_streamed(files: list[str]) -> int:
    import datasets

    return sum(1 for _ in datasets.load_dataset("parquet", data_files=files, split="train", streaming=True))


def with_duckdb(files: list[str]) -> int:
    import duckdb

    return len(duckdb.sql(f"select * from read_parquet({files!r}, hive_partitioning=false)").fetchall())


def with_polars(files: list[str]) -> int:
    import polars

    return polars.read_parquet(files, glob=False, hive_partitioning=False).height


def with_pandas(files: list[str]) -> int:
    import pandas as pd

    return sum(len(pd.read_parquet(file)) for file in files)


def with_pyarrow(files: list[str]) -> int:
    return sum(pq.read_table(file, partitioning=None).num_rows for file in files)


READERS = [with_datasets, with_datasets_streamed, with_duckdb, with_polars, with_pandas, with_pyarrow]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("reader", READERS)
def test_empty_parts_are_read_by_everybody(tmp_path: Path, reader: Callable[[list[str]], int]) -> None:
    for name, schema in TABLES.items():
        empty, full = tmp_path / f"{name}-0.parquet", tmp_path / f"{name}-1.parquet"
        empty.write_bytes(parquet_bytes(name, schema.empty_table(), {}))
        row = pa.Table.from_pylist([_row(schema)], schema=schema)
        full.write_bytes(parquet_bytes(name, row, {}))
        assert pq.read_schema(empty).remove_metadata() == schema.remove_metadata()
        assert reader([str(empty)]) == 0, name
        assert reader([str(empty), str(full)]) == 1, f"{name}: the first part decides how the others are read"
        assert reader([str(full), str(empty)]) == 1, name


def test_names_and_features_have_dictionaries_and_numbers_none() -> None:
    for name, kept in (
        ("codes", {"image_id", "block", "stream", "signal", "branch", "feature.list.element"}),
        ("segments", {"image_id", "concept", "mask.counts"}),
    ):
        row = {**_row(PART_TABLES[name]), **({"feature": [1, 1], "value": [0.5, 0.5]} if name == "codes" else {})}
        table = pa.Table.from_pylist([row] * 2, schema=PART_TABLES[name])
        group = pq.ParquetFile(io.BytesIO(parquet_bytes(name, table, {}))).metadata.row_group(0)
        columns = [group.column(number) for number in range(group.num_columns)]
        assert {c.path_in_schema for c in columns if c.has_dictionary_page} == kept


def _row(schema: pa.Schema) -> dict[str, Any]:
    """One row without nulls where none may be; structs as the tables hold them."""
    row = blank(schema)
    for field in schema:
        if pa.types.is_struct(field.type) and not field.nullable:
            row[field.name] = {"size": [1, 1], "counts": "1"}
    return row


@pytest.mark.parametrize("folder", ["a[1]", "a*b", "seed=3", "what?", "a b", "ü{x}"])
def test_a_run_may_lie_below_any_name(tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture) -> None:
    """Names that are patterns or partitions to somebody: the run works, and what others read is said."""
    path = tmp_path / folder / "run"
    run = finished_run(path)
    assert run.check().problems == []
    assert RunFolder(path).read_table("images")["seed"].to_pylist() == [0, 1]
    assert ("hive_partitioning=false" in caplog.text) == ("=" in folder)
    parts = sorted(str(part) for part in (path / "images").iterdir())
    assert with_pyarrow(parts) == with_pandas(parts) == with_polars(parts) == 2
    remote = RunFolder(f"memory://{re.sub('[?]', '', folder)}/run")
    finished_run(remote.path)
    assert remote.read_table("images")["seed"].to_pylist() == [0, 1]
    finished_run(f"memory://{re.sub('[?]', '', folder)}1/run")
    remote.delete()
    assert RunFolder(f"memory://{re.sub('[?]', '', folder)}1/run").check().problems == [], "another run stays"
    assert not remote.exists()


def test_a_name_that_begins_as_an_address_is_a_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s3:run", "file:run"):
        finished_run(name)
        assert load_labels(name, concept="sky").num_rows == 1
