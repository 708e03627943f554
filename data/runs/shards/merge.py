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
from gazetteer.data.runs.publish import ROW_GROUP, SITE_BY_SITE
from gazetteer.data.runs.shards.parts import ShardParts
from gazetteer.data.runs.shards.records import Commit, part_name
from gazetteer.data.storage.files import Files
from gazetteer.data.tables.schemas import PART_TABLES

Pieces = list[tuple[int, int]]
"""(file, row group) of rows that belong together."""


def put_together(files: Files, name: str, commits: Sequence[Commit]) -> ShardParts:
    """The parts of several shards of the run whose files are given as those of one, `name`.

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
    so that a reader of one site goes through a file instead of many. What is held at a time is a site.

    Raises:
        GazetteerError: the files are not of one table of one run, or rows were lost on the way.
    """
    files = [pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) for content in contents]
    schema = files[0].schema_arrow
    if any(not file.schema_arrow.equals(schema, check_metadata=False) for file in files):
        raise GazetteerError(f"The parts of the table {name} were written with different schemas.")
    rows, sink = 0, io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for pieces in _together(name, files):
            read = [files[file].read_row_group(group, use_threads=False) for file, group in pieces]
            table = pa.concat_tables([part.cast(schema) for part in read])
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


def _together(name: str, files: Sequence[pq.ParquetFile]) -> Iterator[Pieces]:
    """The row groups of all files in the order in which they are written, those of one site together."""
    every = [(file, group) for file, parquet in enumerate(files) for group in range(parquet.num_row_groups)]
    if name not in SITE_BY_SITE:
        yield from ([piece] for piece in every)
        return
    of_site: dict[tuple[Any, ...], Pieces] = {}
    for file, group in every:
        columns = [column for column in SITE_COLUMNS if column in files[file].schema_arrow.names]
        row = files[file].read_row_group(group, columns=columns, use_threads=False).slice(0, 1).to_pylist()[0]
        key = tuple(-row[column] if column == "t" else row[column] for column in columns)
        of_site.setdefault(key, []).append((file, group))
    yield from (of_site[key] for key in sorted(of_site))
