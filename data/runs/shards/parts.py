"""What becomes of a shard where it is made: its parts as files, described, and put where the run can take them over.

A worker encodes and hashes its own shards and, where it sees the run's folder, stages them there under names that
follow from their content: nothing but the descriptions travels. The process that drives the run then moves what is
staged to the parts' names and writes the record (`gazetteer.data.runs.shards.commits`), which alone makes a shard
count. A worker that is killed leaves staged files that no record names; the next holder of the run removes them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.publish import conform, describe, parquet_bytes
from gazetteer.data.storage.files import STAGING, Files
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.schemas import PART_TABLES


@dataclass(frozen=True)
class ShardParts:
    """A shard's parts.

    Attributes:
        shard: its id.
        tables: per table its part's ``rows``, ``bytes`` and ``sha256``.
        contents: the files themselves; of what is missing here the file is staged in the run.
    """

    shard: str
    tables: dict[str, dict[str, Any]]
    contents: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Workshop:
    """Where workers publish: a run as its driver sees it.

    Attributes:
        path: of the run.
        sign: a file that the driver has put there; who finds it sees the same folder, whatever else bears its name.
        provenance: goes into every file.
    """

    path: str
    sign: str
    provenance: Mapping[str, Any]

    def publish(self, shard: str, tables: Mapping[str, pa.Table]) -> ShardParts:
        """Encode a shard's tables and stage them, where the run can be seen from here.

        Raises:
            GazetteerError: a table does not fit its schema, or the storage refused.
        """
        parts = encoded(shard, tables, dict(self.provenance))
        files = self._seen()
        if files is None:
            return parts
        stage(
            files, {staged_name(shard, t, parts.tables[t]["sha256"]): content for t, content in parts.contents.items()}
        )
        return ShardParts(shard, parts.tables)

    def _seen(self) -> Files | None:
        """The run's files, or None where another folder, or nothing, lies at its path."""
        try:
            files = open_files(self.path)
            return None if files.size(self.sign) is None else files
        except GazetteerError:  # no such store from this node, or no credentials for it
            return None


def open_workshop(files: Files, path: str, provenance: Mapping[str, Any]) -> Workshop:
    """Let workers publish into the run at `path`; for the process that holds its lock."""
    sign = f"{STAGING}/here.{uuid.uuid4().hex}"
    files.replace(sign, b"")
    return Workshop(path, sign, dict(provenance))


def encoded(shard: str, tables: Mapping[str, pa.Table], provenance: dict[str, Any]) -> ShardParts:
    """A shard's tables as files, each checked to read back.

    Raises:
        GazetteerError: a table that there is not, or that does not fit its schema.
    """
    described: dict[str, dict[str, Any]] = {}
    contents: dict[str, bytes] = {}
    for name, table in sorted(tables.items()):
        if name not in PART_TABLES:
            raise GazetteerError(f"There is no table {name!r} in parts; there are {', '.join(PART_TABLES)}.")
        table = conform(name, table, PART_TABLES[name])
        contents[name] = parquet_bytes(name, table, provenance)
        described[name] = describe(table, contents[name])
    return ShardParts(shard, described, contents)


def stage(files: Files, contents: Mapping[str, bytes]) -> None:
    """Put files under their names, durably, side by side: they wait for the disk once, and not one after the other.

    Raises:
        GazetteerError: the storage refused; none of them is left.
    """
    if not contents:
        return
    try:
        with ThreadPoolExecutor(len(contents)) as threads:
            list(threads.map(files.replace, contents.keys(), contents.values()))
    except GazetteerError:
        for name in contents:
            files.remove(name)
        raise


def staged_name(shard: str, table: str, sha256: str) -> str:
    """Where a part waits for the record that names it."""
    return f"{STAGING}/{shard}.{table}.{sha256}"
