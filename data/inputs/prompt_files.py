"""Where prompts come from: text, CSV, JSONL and Parquet files, and Hugging Face data sets, one after the other."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.regular import read_regular, require_file

ACCEPTED = (
    "a .txt (one prompt a line), .csv, .jsonl or .parquet file (text ones also as .gz), "
    "a folder in a format that Hugging Face datasets reads, or hf:owner/name"
)
HUB = "hf:"
"""What a path begins with that names a data set on the Hugging Face hub."""


def prompts_of_file(path: str | Path, column: str) -> Iterator[str | None]:
    """The entries of `column` as they stand, Parquet a batch of rows at a time.

    Args:
        path: .txt (one prompt a line), .csv with a header, .jsonl (an object a line) or .parquet; text also as .gz.
        column: which column or key holds the prompt; .txt has none.

    Raises:
        InputError: no such file, another format, no such column, or bytes that are not UTF-8.
    """
    path = Path(path)
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    zipped = path.name.lower().endswith(".gz")
    if kind not in ("txt", "csv", "jsonl", "parquet") or (zipped and kind == "parquet"):
        raise InputError(f"Prompts cannot be read from {path}; accepted: {ACCEPTED}.")
    require_file("The prompts file", path, ACCEPTED)
    if kind == "parquet":
        return _from_parquet(path, column)
    return {"txt": _from_txt, "csv": _from_csv, "jsonl": _from_jsonl}[kind](path, _text(path, zipped), column)


def prompts_of_dataset(
    name: str, column: str, *, subset: str = "", split: str = "train", revision: str = ""
) -> Iterator[str | None]:
    """The entries of `column` of a Hugging Face data set, streamed: nothing but what is asked for is read.

    Args:
        name: a folder, or the hub id owner/name.
        subset: the data set's configuration, empty for its only one.
        split: which of its splits.
        revision: of the hub's repository, empty for the newest.

    Raises:
        InputError: the package is missing, or there is no such data set, split or column.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"Prompts from the data set {name} need the package datasets: pip install 'gazetteer[prompts]'."
        ) from error
    datasets.disable_progress_bars()
    try:
        rows: Any = datasets.load_dataset(name, subset or None, split=split, revision=revision or None, streaming=True)
        if rows.column_names and column in rows.column_names:
            rows = rows.select_columns([column])  # pictures beside the captions are not even read
        for row in rows:
            if column not in row:
                raise _unknown_column(name, column, list(row))
            if not isinstance(row[column], str | None):
                raise InputError(f"{name}: {column!r} is not text.")
            yield row[column]
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"The data set {name} (split {split}) cannot be read: {first_line(error)}") from error


def _text(path: Path, zipped: bool) -> str:
    try:
        raw = read_regular(path)
        return (gzip.decompress(raw) if zipped else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); accepted: {ACCEPTED}.") from error


def _from_txt(path: Path, text: str, column: str) -> Iterator[str]:
    yield from _lines(text)


def _lines(text: str) -> list[str]:
    """Lines as files of all systems end them, old Macs' too; what else Unicode breaks a line at is text."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _from_csv(path: Path, text: str, column: str) -> Iterator[str | None]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in rows.fieldnames or []]
        rows.fieldnames = names
        if column not in names:
            raise _unknown_column(path, column, names)
        _require_once(path, column, names)
        for row in rows:
            if surplus := row.get(None):  # type: ignore[call-overload]
                raise InputError(
                    f"{path}, line {rows.line_num}: {len(names) + len(surplus)} fields where the header has "
                    f"{len(names)}; put a prompt with commas between double quotes."
                )
            if row[column] is None:
                fields = sum(value is not None for value in row.values())
                raise InputError(
                    f"{path}, line {rows.line_num}: {fields} of the header's {len(names)} fields, and no {column!r} "
                    "among them; of a row without a prompt the field is empty, not missing."
                )
            yield row[column]
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not CSV ({error}).") from error


def _from_jsonl(path: Path, text: str, column: str) -> Iterator[str | None]:
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=lambda pairs: _Row(pairs, column))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object with the key {column!r}.")
        if column not in row:
            raise _unknown_column(path, column, list(row), f", line {number}")
        if not isinstance(row[column], str | None):
            raise InputError(f"{path}, line {number}: {column!r} is not text.")
        if _is_torn(row[column]):
            raise InputError(f"{path}, line {number}: {column!r} holds half of a character (a lone surrogate).")
        yield row[column]


def _from_parquet(path: Path, column: str) -> Iterator[str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise _unknown_column(path, column, file.schema_arrow.names)
            _require_once(path, column, file.schema_arrow.names)
            kind = file.schema_arrow.field(column).type
            stored = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (_is_text(stored) or pa.types.is_null(stored)):
                raise InputError(f"{path}: {column!r} is not text but {kind}.")
            for batch in file.iter_batches(columns=[column]):
                yield from batch.column(column).cast(pa.string()).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet with text in {column!r} ({error}).") from error


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


class _Row(dict[str, Any]):
    """An object of JSON; ValueError when the key that is read occurs twice, of which only one would be heard."""

    def __init__(self, pairs: list[tuple[str, Any]], column: str) -> None:
        super().__init__(pairs)
        if sum(name == column for name, _ in pairs) > 1:
            raise ValueError(f"the key {column!r} occurs twice")


def _require_once(path: Path, column: str, names: list[str]) -> None:
    if names.count(column) > 1:
        raise InputError(f"{path} has {names.count(column)} columns {column!r}; rename all but the one that is meant.")


def _is_torn(text: str | None) -> bool:
    """Whether text cannot be written as UTF-8."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return True
    return False


def _unknown_column(path: Path | str, column: str, names: list[str], where: str = "") -> InputError:
    return InputError(f"{path}{where} has no column {column!r}; it has: {', '.join(map(str, names)) or 'none'}.")
