"""A table becomes the bytes of one Parquet file, checked before anybody can see it."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.core.sites import SITE_COLUMNS
from gazetteer.data.tables.provenance import with_provenance

ROW_GROUP = 65_536
SITE_BY_SITE = {
    "codes": [(name, "descending" if name == "t" else "ascending") for name in SITE_COLUMNS],
    "evidence": [],
}
"""Tables too large to be read whole for one site: a row group a site, rows in this order (evidence keeps its own)."""

# HF datasets reads this key and shows the column as pictures instead of structs.
_HF_IMAGES = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})


def conform(name: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema` in its order and types.

    Raises:
        GazetteerError: a column is missing or extra, does not cast, or holds nulls where none may be.
    """
    missing = [field for field in schema.names if field not in table.column_names]
    extra = [column for column in table.column_names if column not in schema.names]
    if missing or extra or len(table.column_names) != len(schema.names):
        raise GazetteerError(
            f"The table {name} does not fit its schema: "
            f"missing {missing or 'nothing'}, unexpected {extra or 'nothing'}."
        )
    columns = []
    for field in schema:
        try:
            column = table.column(field.name).cast(field.type)
        except pa.ArrowException as error:
            raise GazetteerError(
                f"The table {name} does not fit its schema: column {field.name!r}: {error}."
            ) from error
        if column.null_count and not field.nullable:
            raise GazetteerError(f"The table {name} does not fit its schema: column {field.name!r} holds nulls.")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema.remove_metadata())


def parquet_bytes(name: str, table: pa.Table, provenance: dict[str, Any]) -> bytes:
    """The Parquet file of `table`, zstd with page checksums; the same input gives the same bytes.

    Raises:
        GazetteerError: what was written does not read back as the table.
    """
    table = with_provenance(table, provenance)
    if name == "images":
        table = table.replace_schema_metadata({**table.schema.metadata, b"huggingface": _HF_IMAGES.encode()})
    sink = io.BytesIO()
    with parquet_writer(sink, table.schema) as writer:
        for group in _row_groups(name, table):
            writer.write_table(group, row_group_size=ROW_GROUP)
    content = sink.getvalue()
    file = pq.ParquetFile(io.BytesIO(content))
    if file.metadata.num_rows != table.num_rows or not file.schema_arrow.equals(table.schema):
        raise GazetteerError(f"The table {name} did not survive being written as Parquet: rows or schema differ.")
    return content


def parquet_writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of a run's tables: zstd with page checksums, and dictionaries of what repeats: names, and features.

    Of counts and activations a dictionary costs time, of the reader as well, and saves no space.
    """
    repeating = [path for field in schema for path, kind in _leaves(field) if kind in (pa.string(), pa.uint32())]
    return pq.ParquetWriter(
        sink, schema, compression="zstd", write_page_checksum=True, use_dictionary=repeating or False
    )


def _leaves(field: pa.Field) -> list[tuple[str, pa.DataType]]:
    """The columns that Parquet makes of one, by path, with their types."""
    inner: list[pa.Field] = []
    if pa.types.is_list(field.type):
        inner = [field.type.value_field.with_name("list.element")]
    elif pa.types.is_struct(field.type):
        inner = list(field.type)
    below = [(f"{field.name}.{path}", kind) for child in inner for path, kind in _leaves(child)]
    return below or [(field.name, field.type)]


def _row_groups(name: str, table: pa.Table) -> list[pa.Table]:
    """The rows in stretches that begin a row group each: those of one site, so that readers of it skip the others.

    Without rows there is no row group at all: Hugging Face datasets reads in batches of the first group's size, and
    stops at one of no rows.
    """
    if not table.num_rows:
        return []
    if name not in SITE_BY_SITE:
        return [table]
    if SITE_BY_SITE[name]:
        table = table.sort_by([*SITE_BY_SITE[name], ("image_id", "ascending")])
    ids = np.zeros(table.num_rows, np.int64)
    for column in SITE_COLUMNS:
        encoded = table[column].combine_chunks().dictionary_encode()
        ids = ids * (len(encoded.dictionary) + 1) + encoded.indices.to_numpy()
    cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1), table.num_rows]
    if len(cuts) - 1 > len(np.unique(ids)):  # in no order of sites
        return [table]
    return [table.slice(low, high - low) for low, high in pairwise(cuts)]


def describe(table: pa.Table, content: bytes) -> dict[str, Any]:
    """``{"rows", "bytes", "sha256"}`` of a table's file, as commit records and manifests keep it."""
    return {"rows": table.num_rows, "bytes": len(content), "sha256": digest_bytes(content)}


def json_bytes(obj: Any) -> bytes:
    """JSON for people and diffs: indented, keys sorted; ValueError for NaN."""
    text = json.dumps(obj, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "surrogatepass")
