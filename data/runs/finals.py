"""The final tables at the top of a run: written whole, read with a sentence for whatever is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import NotRegularError
from gazetteer.data.runs.publish import conform, describe, parquet_bytes
from gazetteer.data.runs.reading import checked_query, plain, readable, rows, writer_of
from gazetteer.data.runs.shards.records import NAME, check_name, is_description
from gazetteer.data.storage.files import Files
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import BEFORE_STREAMS, CAUSAL, EXAMINERS, FINAL_TABLES, SCHEMA_VERSION

ALL_FINALS = {**FINAL_TABLES, "causal": CAUSAL, "examiners": EXAMINERS}
"""Every table that may lie at the top of a run; the last two are written by commands of their own."""


class Finals:
    """The final tables of the run whose files are given."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def write(self, name: str, table: pa.Table, provenance: dict[str, Any]) -> dict[str, Any]:
        """Put ``<name>.parquet`` at the top, atomically; returns its ``rows``, ``bytes`` and ``sha256``.

        Known names are cast to `gazetteer.data.tables.schemas.FINAL_TABLES`; others keep the schema they have.
        """
        check_name(name)
        if name in FINAL_TABLES:
            table = conform(name, table, FINAL_TABLES[name])
        content = parquet_bytes(name, table, provenance)
        self._files.replace(f"{name}.parquet", content)
        return describe(table, content)

    def has(self, name: str) -> bool:
        """Whether a final table was written."""
        return self._files.size(f"{name}.parquet") is not None

    def read(self, name: str, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:
        """A final table.

        Raises:
            InputError: the run has not written it yet, or in an older schema that lacks a column asked for; an unknown
                column; a damaged file.
        """
        if not self.has(name):
            root = self._files.root
            if "://" not in str(root) and not Path(root).exists():
                raise InputError(f"{root} is not a finished run: there is no such folder.")
            raise InputError(f"{root} is not a finished run: {name}.parquet is missing; run gazetteer label.")
        schema = ALL_FINALS.get(name)
        if schema is not None:
            checked_query(name, schema, columns, filter)
            self._check_written(name, schema.names if columns is None else columns)
        with readable(self._files.root, f"{name}.parquet"):
            source = self._files.source(f"{name}.parquet")
            if schema is None or filter is None:
                return rows(source, schema, columns, filter)
            # Few rows are wanted of many: words stay numbers until those are found.
            words = [field.name for field in schema if field.type == pa.string()]
            return plain(rows(source, schema, columns, filter, words))

    def damaged(self, recorded: dict[str, dict[str, Any]]) -> dict[str, str]:
        """The final tables that are not as `recorded` (``rows``, ``bytes``, ``sha256`` by name), and what is wrong."""
        problems = {name: self._problem(name, recorded.get(name)) for name in FINAL_TABLES}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def _problem(self, name: str, recorded: dict[str, Any] | None) -> str | None:
        """Why a final table is not the one that was recorded, in this program's schema; None: it is."""
        try:
            content = self._files.read(f"{name}.parquet")
        except (FileNotFoundError, NotRegularError):
            return "is missing"
        if recorded is None or len(content) != recorded["bytes"] or digest_bytes(content) != recorded["sha256"]:
            return "is damaged"
        if not pq.read_schema(pa.BufferReader(content)).remove_metadata().equals(FINAL_TABLES[name]):
            return "was written in another schema"
        return None

    def _check_written(self, name: str, columns: Sequence[str]) -> None:
        """InputError when the file of a final table lacks one of `columns`, as those of older schemas do."""
        with readable(self._files.root, f"{name}.parquet"):
            written = pq.read_schema(self._files.source(f"{name}.parquet"))
        if not set(columns) <= {*written.names, *BEFORE_STREAMS}:
            version = read_provenance(self._files.source(f"{name}.parquet")).get("schema_version")
            raise InputError(
                f"{self._files.root}/{name}.parquet was written with schema {version}, this program reads "
                f"{SCHEMA_VERSION}; run gazetteer {writer_of(name)} on it again."
            )


def parse_manifest(content: bytes) -> dict[str, Any] | None:
    """A manifest whose ``shards`` and ``tables`` can be looked up, or None: names never lead out of a run."""
    try:
        manifest = {"shards": [], "tables": {}, **json.loads(content)}
        shards, tables = manifest["shards"], manifest["tables"]
        sound = isinstance(shards, list) and all(re.fullmatch(NAME, name) for name in shards)
        sound = sound and tables.keys() <= FINAL_TABLES.keys() and all(map(is_description, tables.values()))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return manifest if sound else None
