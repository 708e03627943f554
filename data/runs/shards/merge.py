"""The parts of several shards as one file a table, with a row group a site again where the table has them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.core.files.regular import NotRegularError
from gazetteer.data.core.sites import SITE_COLUMNS
from gazetteer.data.runs.publish import ROW_GROUP, SITE_BY_SITE, parquet_writer
from gazetteer.data.runs.shards.parts import ShardParts
from gazetteer.data.runs.shards.records import Commit, part_name
from gazetteer.data.storage.files import Files
from gazetteer.data.tables.schemas import BEFORE_STREAMS, PART_TABLES

Pieces = list[tuple[int, int]]
"""(file, row group) of rows that belong together."""


def put_together(files: Files, name: str, commits: Sequence[Commit]) -> ShardParts:
    """The parts of several shards of the run whose files are given as those of one, `name`.

    Held at a time are the files of the group that were made so far, and those of one table that go into the next: at
    most twice what the shards take on disk.

    Raises:
        GazetteerError: a part is not the one that was recorded.
    """
    contents, described = {}, {}
    for table in PART_TABLES:
        parts = [_part(files, table, commit) for commit in commits if table in commit.tables]
        if parts:
            contents[table], described[table] = merged(table, parts)
    return ShardParts(name, described, contents)


def _part(files: Files, table: str, commit: Commit) -> bytes:
    path = part_name(table, commit.shard)
    try:
        content = files.read(path)
    except (FileNotFoundError, NotRegularError):
        content = b""
    if digest_bytes(content) != commit.tables[table]["sha256"]:
        raise GazetteerError(f"{files.root}/{path} is not the part that was recorded; run gazetteer verify on the run.")
    return content


def merged(name: str, contents: Sequence[bytes]) -> tuple[bytes, dict[str, Any]]:
    """One Parquet file with the rows of several of the same table and run, and its description.

    Rows keep their order within a file and the files theirs; in tables with a row group a site, the sites come first,
    so that a reader of one site goes through a file instead of many. Beside the files, what is held at a time is a
    site. Parts of a run that was begun by an older version lack columns; these hold what such files were about.

    Raises:
        GazetteerError: the files are not of one table of one run, or rows were lost on the way.
    """
    files = [pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) for content in contents]
    schema = max((file.schema_arrow for file in files), key=len)
    if any(set(schema.names) - set(file.schema_arrow.names) - BEFORE_STREAMS.keys() for file in files):
        raise GazetteerError(f"The parts of the table {name} were written with different schemas.")
    rows, sink = 0, io.BytesIO()
    with parquet_writer(sink, schema) as writer:
        for pieces in _together(name, files):
            read = [files[file].read_row_group(group, use_threads=False) for file, group in pieces]
            table = pa.concat_tables([_completed(part, schema) for part in read])
            if SITE_BY_SITE.get(name):
                table = table.sort_by("image_id")
            rows += table.num_rows
            if table.num_rows:
                writer.write_table(table, row_group_size=ROW_GROUP)
    content = sink.getvalue()
    wanted = sum(file.metadata.num_rows for file in files)
    if not rows == wanted == pq.read_metadata(io.BytesIO(content)).num_rows:
        raise GazetteerError(f"The table {name} did not survive being put together: rows differ.")
    return content, {"rows": rows, "bytes": len(content), "sha256": digest_bytes(content)}


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with all columns of `schema`, those of older versions' tables filled."""
    for name in schema.names:
        if name not in table.column_names:
            value = pa.scalar(BEFORE_STREAMS[name], schema.field(name).type)
            table = table.append_column(schema.field(name), pa.repeat(value, table.num_rows))
    return table.select(schema.names).cast(schema)


def _together(name: str, files: Sequence[pq.ParquetFile]) -> Iterator[Pieces]:
    """The row groups of all files in the order in which they are written, those of one site together."""
    every = [(file, group) for file, parquet in enumerate(files) for group in range(parquet.num_row_groups)]
    if name not in SITE_BY_SITE:
        yield from ([piece] for piece in every)
        return
    of_site: dict[tuple[Any, ...], Pieces] = {}
    for file, group in every:
        first = files[file].read_row_group(group, columns=list(SITE_COLUMNS), use_threads=False).slice(0, 1)
        row = {**BEFORE_STREAMS, **first.to_pylist()[0]}
        key = tuple(-row[column] if column == "t" else row[column] for column in SITE_COLUMNS)
        of_site.setdefault(key, []).append((file, group))
    yield from (of_site[key] for key in sorted(of_site))
