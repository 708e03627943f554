"""Rows of one Parquet file of a run, with a sentence for whatever is wrong with the file or the question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.errors import InputError

_WRITER = {"causal": "causal"}  # final tables that another command than label writes


def rows(source: Any, columns: Sequence[str] | None, filter: Any) -> pa.Table:
    """What is asked for of one Parquet file; OSError or ArrowException when it is damaged (None: known to be)."""
    if source is None:
        raise OSError("not what its commit record says")
    return pq.read_table(
        source,
        columns=None if columns is None else list(columns),
        filters=filter,
        partitioning=None,
        use_threads=False,
        page_checksum_verification=True,
    ).replace_schema_metadata(None)


def checked_query(name: str, schema: pa.Schema, columns: Sequence[str] | None, filter: Any) -> pa.Schema:
    """The schema of the answer; InputError for a column or filter that does not fit table `name`."""
    for column in columns or ():
        if column not in schema.names:
            raise InputError(f"The table {name} has no column {column!r}; it has {', '.join(schema.names)}.")
    if filter is not None:
        try:
            expression = pq.filters_to_expression(filter) if isinstance(filter, list | tuple) else filter
            schema.empty_table().filter(expression)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"The filter does not fit the table {name} ({error}).") from error
    return schema if columns is None else pa.schema([schema.field(column) for column in columns])


@contextmanager
def readable(root: str, path: str) -> Iterator[None]:
    """Turn what pyarrow says of a damaged file of the run at `root` into a sentence with what helps (InputError)."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        anew = f"run gazetteer {writer_of(path.removesuffix('.parquet'))} again, which makes it anew"
        drop = f"run gazetteer verify {root} --drop, then run gazetteer label again"
        reason = str(error).partition("\n")[0]
        raise InputError(f"{root}/{path} is missing or corrupt ({reason}); {drop if '/' in path else anew}.") from error


def writer_of(name: str) -> str:
    """The command that writes a final table."""
    return _WRITER.get(name, "label")
