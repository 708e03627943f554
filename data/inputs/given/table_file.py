"""A file with a row a mask: CSV, JSON lines or Parquet, its text as it is written."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.regular import require_file

SUFFIXES = (".csv", ".jsonl", ".parquet")
COLUMNS = ("image", "concept", "mask")
"""What every table has."""
READ = (*COLUMNS, "caption", "crowd", "asked")

_TEXT = {name: pa.string() for name in (*COLUMNS, "caption")}
_MOST = 2**31 - 1
"""Bytes that are read as one block, where a type that is guessed holds for all rows and no row is too long."""


def read_file(file: Path) -> list[dict[str, Any]]:
    """The rows of a file, with `COLUMNS` and, as far as they are there, other ones.

    Raises:
        InputError: another format, nothing that can be read, or a column that is missing or there twice,
            or seems to be misspelt.
    """
    if file.suffix not in SUFFIXES:
        raise InputError(f"pictures.table {file} is neither a folder nor one of {', '.join(SUFFIXES)}.")
    require_file("pictures.table", file, f"a run's folder, or a file of {', '.join(SUFFIXES)}")
    try:
        table = {".csv": _csv, ".jsonl": _json, ".parquet": _parquet}[file.suffix](file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read ({first_line(error)}).") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise InputError(f"{file} has no column {missing[0]!r}; a table of pictures needs image, concept and mask.")
    if ignored := [name for name in table.column_names if "ignor" in name.lower() or name.lower() == "void"]:
        raise InputError(
            f"{file} has a column {ignored[0]!r}: a table marks no pixels to be ignored. Call it 'crowd' (1: the "
            "picture is not asked for the row's concept), or leave it out."
        )
    for name in table.column_names:
        if name not in READ and (meant := _meant(name)):
            raise InputError(f"{file} has a column {name!r}, which nothing reads; call it {meant!r}, or leave it out.")
    twice = [name for name in READ if table.column_names.count(name) > 1]
    if twice:
        raise InputError(
            f"{file} has {table.column_names.count(twice[0])} columns {twice[0]!r}; keep the one that is meant."
        )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _meant(name: str) -> str:
    """The column beside `COLUMNS` that another is likely meant as: a crowd by another name would count as a thing."""
    for own in READ[len(COLUMNS) :]:
        if own in name.lower() or get_close_matches(name.lower(), [own], cutoff=0.8):
            return own
    return ""


def _csv(file: Path) -> pa.Table:
    return pa.csv.read_csv(
        file,
        read_options=pa.csv.ReadOptions(block_size=_block(file)),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types=_TEXT),
    )


def _parquet(file: Path) -> pa.Table:
    with pq.ParquetFile(file) as opened:  # as a data set, folders called name=value above it would be columns
        return opened.read()


def _json(file: Path) -> pa.Table:
    read = pa.json.ReadOptions(block_size=_block(file))
    table = pa.json.read_json(file, read_options=read)
    text = {**_TEXT, "asked": pa.list_(pa.string())}
    taken = [(name, text[name]) for name, kind in zip(table.column_names, table.schema.types, strict=True)
             if name in text and pa.types.is_temporal(getattr(kind, "value_type", kind))]  # fmt: skip
    if not taken:
        return table
    # Text that looks like a date was taken for one.
    return pa.json.read_json(
        file, read_options=read, parse_options=pa.json.ParseOptions(explicit_schema=pa.schema(taken))
    )


def _block(file: Path) -> int:
    return min(max(file.stat().st_size + 1, 1 << 20), _MOST)
