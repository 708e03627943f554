"""The run folder: everything a run leaves behind.

Layout, below a folder or URL::

    <table>/part-<shard>.parquet    the parts, one a shard, published create-only
    labels.parquet, …               the final tables
    _meta/run.json                  what the run was started with; never changes
    _meta/commits/<shard>.json      the truth: which parts count, with their digests (data/runs/commits.py)
    _meta/{plan,progress,manifest}.json, _meta/_SUCCESS

What is not Parquet lies under ``_meta``, because readers choke on stray files beside the parts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.runs.commits import Commit, Commits, check_name, part_name
from gazetteer.data.runs.publish import conform, describe, json_bytes, parquet_bytes
from gazetteer.data.runs.remote import open_files
from gazetteer.data.runs.runlock import run_lock
from gazetteer.data.runs.verify import Findings, check_files
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import CAUSAL, FINAL_TABLES, PART_TABLES, SCHEMA_VERSION

__all__ = ["Commit", "RunFolder"]

_ATTEMPTS = 5
_WRITER = {"causal": "causal"}  # final tables that another command than label writes


class RunFolder:
    """A run at a local folder or an fsspec URL; nothing is created before the first write."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._files = open_files(path)
        self._commits = Commits(self._files)

    def __repr__(self) -> str:
        return f"RunFolder({self.path!r})"

    def free_bytes(self) -> int | None:
        """How much can still be written to where the run lies; None behind URLs."""
        return self._files.free()

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return self._files.size("_meta/run.json") is not None

    def open_or_create(self, fingerprint: dict[str, Any]) -> RunFolder:
        """Start the run, or resume it if it was started with the same `fingerprint` (a flat dict of digests).

        Raises:
            InputError: the run was started with another one; the sentence names every differing key.
        """
        mine = json.loads(json_bytes(fingerprint))
        there = self.write_json_once("run.json", mine)
        if not isinstance(there, dict):
            raise InputError(f"{self._files.root}/_meta/run.json is not a run's fingerprint; choose another folder.")
        # A key that one side lacks differs even from a null on the other.
        differing = [
            key for key in sorted(mine.keys() | there.keys())
            if (key in mine, mine.get(key)) != (key in there, there.get(key))
        ]  # fmt: skip
        if differing:
            changes = "; ".join(f"{key}: was {_shown(there, key)}, now {_shown(mine, key)}" for key in differing)
            raise InputError(
                f"{self._files.root} was started with other settings ({changes}). "
                "A changed config is a different run: choose another folder, or go back to those settings."
            )
        return self

    def write_json(self, name: str, obj: Any) -> None:
        """Put `obj` at ``_meta/<name>``, atomically over what was there."""
        self._files.replace(f"_meta/{name}", json_bytes(obj))

    def write_top_json(self, name: str, obj: Any) -> None:
        """Put `obj` at ``<name>``, beside folders of runs, atomically; never where tables lie."""
        check_name(name)
        self._files.replace(name, json_bytes(obj))

    def write_json_once(self, name: str, obj: Any) -> Any:
        """Put `obj` at ``_meta/<name>`` unless it is there; returns what is there afterwards."""
        content = json_bytes(obj)
        for _ in range(_ATTEMPTS):
            if self._files.create(f"_meta/{name}", content):
                return json.loads(content)
            there = self.read_json(name)
            if there is not None:
                return there
        raise GazetteerError(f"{self._files.root}/_meta/{name} comes and goes; is somebody deleting the run?")

    def read_json(self, name: str) -> Any:
        """What ``_meta/<name>`` holds, or None when absent; InputError naming the file when it is corrupt."""
        try:
            return json.loads(self._files.read(f"_meta/{name}").decode("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(
                f"{self._files.root}/_meta/{name} is corrupt ({error}); remove it and try again."
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run, alone; LockedError when another process does. Freed when the holder dies.

        What killed writers left half-written is removed on the way in.
        """
        with run_lock(self._files):
            self._files.sweep()
            yield

    def commit_shard(
        self, shard_id: str, tables: dict[str, pa.Table], info: dict[str, Any], provenance: dict[str, Any]
    ) -> Commit:
        """Publish a shard's parts and record them; if the shard is committed already, that commit stays.

        Args:
            shard_id: letters, digits, ``-``, ``_`` and ``.`` only.
            tables: by name in `gazetteer.data.tables.schemas.PART_TABLES`, cast to their schemas.
            info: JSON-ready, kept in the record.
            provenance: goes into every file's metadata (`gazetteer.data.tables.provenance.provenance`).

        Returns:
            The commit that counts, which is an earlier one if there was.

        Raises:
            GazetteerError: a table does not fit its schema, or the storage refused (nothing torn is left).
        """
        return self._commits.commit(shard_id, tables, info, provenance)

    def committed(self, verify: bool = False) -> dict[str, Commit]:
        """Every shard that counts, by id.

        One with a missing or damaged part is dropped, with a warning, so that it is computed again.

        Args:
            verify: compare the parts' sha256, not only their sizes.
        """
        return self._commits.valid(verify)

    def check(self) -> Findings:
        """Everything the run has recorded, compared with what lies there; changes nothing.

        Raises:
            InputError: no run was ever started here.
        """
        return check_files(self._files)

    def shard_ids(self) -> list[str]:
        """Sorted ids of the shards with a commit record, unchecked: nothing is read, nothing is dropped."""
        return self._commits.ids()

    def drop_shard(self, shard_id: str) -> None:
        """Forget a shard, record first, so that it is computed again."""
        self._commits.drop(shard_id)

    def read_table(
        self,
        name: str,
        shards: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: Any = None,
    ) -> pa.Table:
        """Rows of the committed parts of table `name`, shards in sorted order.

        Args:
            shards: only these (InputError if one is not committed); default all.
            columns: only these; default all.
            filter: a `pyarrow.compute.Expression`, or pyarrow's list-of-tuples form.

        Raises:
            InputError: no such table or column, or a part that is missing or corrupt.
        """
        if name not in PART_TABLES:
            raise InputError(f"There is no table {name!r} in parts; there are {', '.join(PART_TABLES)}.")
        schema = _checked_query(name, PART_TABLES[name], columns, filter)
        pieces = []
        for shard_id in self._commits.ids() if shards is None else sorted(set(shards)):
            commit = self._commits.record(shard_id)
            if commit is None:
                raise InputError(f"Shard {shard_id} of {self._files.root} is not committed; run gazetteer label again.")
            if name in commit.tables:
                with self._readable(part_name(name, shard_id)):
                    piece = _rows(self._part_source(name, commit, whole=columns is None), columns, filter)
                pieces.append(piece.cast(schema))
        return pa.concat_tables(pieces) if pieces else schema.empty_table()

    def write_final(self, name: str, table: pa.Table, provenance: dict[str, Any]) -> dict[str, Any]:
        """Put ``<name>.parquet`` at the top, atomically; returns its ``rows``, ``bytes`` and ``sha256``.

        Known names are cast to `gazetteer.data.tables.schemas.FINAL_TABLES`; others keep the schema they have.
        """
        check_name(name)
        if name in FINAL_TABLES:
            table = conform(name, table, FINAL_TABLES[name])
        content = parquet_bytes(name, table, provenance)
        self._files.replace(f"{name}.parquet", content)
        return describe(table, content)

    def has_final(self, name: str) -> bool:
        """Whether a final table was written."""
        return self._files.size(f"{name}.parquet") is not None

    def read_final(self, name: str, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:
        """A final table.

        Raises:
            InputError: the run has not written it yet, or in an older schema that lacks a column asked for; an unknown
                column; a damaged file.
        """
        if not self.has_final(name):
            raise InputError(
                f"{self._files.root} is not a finished run: {name}.parquet is missing; run gazetteer label."
            )
        schema = {**FINAL_TABLES, "causal": CAUSAL}.get(name)
        if schema is not None:
            _checked_query(name, schema, columns, filter)
            self._check_written(name, schema.names if columns is None else columns)
        with self._readable(f"{name}.parquet"):
            return _rows(self._files.source(f"{name}.parquet"), columns, filter)

    def damaged_finals(self, recorded: dict[str, dict[str, Any]]) -> dict[str, str]:
        """The final tables that are not as `recorded` (``rows``, ``bytes``, ``sha256`` by name), and what is wrong."""
        problems = {name: self._final_problem(name, recorded.get(name)) for name in FINAL_TABLES}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Remove parts that no commit names, write ``manifest.json``, then ``_SUCCESS``."""
        self._commits.remove_orphans()
        self._commits.remove_staged()
        content = json_bytes(manifest)
        self._files.replace("_meta/manifest.json", content)
        self._files.replace("_meta/_SUCCESS", digest_bytes(content).encode() + b"\n")

    def is_complete(self) -> bool:
        """Whether the run finished and the manifest is the one it finished with."""
        try:
            mark = self._files.read("_meta/_SUCCESS").decode("ascii", "replace").strip()
            return mark == digest_bytes(self._files.read("_meta/manifest.json"))
        except FileNotFoundError:
            return False

    def clear_success(self) -> None:
        """Say that the run is under way again."""
        self._files.remove("_meta/_SUCCESS")

    def delete(self) -> None:
        """Delete the run, its mark of completeness first; raises LockedError while a process works on it."""
        with self.lock():
            self.clear_success()
            self._files.remove_tree()

    def _part_source(self, name: str, commit: Commit, whole: bool) -> Any:
        """A committed part, its digest checked when it is read whole, else its size; None when it is damaged."""
        path, recorded = part_name(name, commit.shard), commit.tables[name]
        if not whole:  # page checksums cover what will be read of it
            return self._files.source(path) if self._files.size(path) == recorded["bytes"] else None
        try:
            content = self._files.read(path)
        except FileNotFoundError:
            return None
        return pa.BufferReader(content) if digest_bytes(content) == recorded["sha256"] else None

    def _final_problem(self, name: str, recorded: dict[str, Any] | None) -> str | None:
        """Why a final table is not the one that was recorded, in this program's schema; None: it is."""
        try:
            content = self._files.read(f"{name}.parquet")
        except FileNotFoundError:
            return "is missing"
        if recorded is None or len(content) != recorded["bytes"] or digest_bytes(content) != recorded["sha256"]:
            return "is damaged"
        if not pq.read_schema(pa.BufferReader(content)).remove_metadata().equals(FINAL_TABLES[name]):
            return "was written in another schema"
        return None

    def _check_written(self, name: str, columns: Sequence[str]) -> None:
        """InputError when the file of a final table lacks one of `columns`, as those of older schemas do."""
        with self._readable(f"{name}.parquet"):
            there = pq.read_schema(self._files.source(f"{name}.parquet"))
        if not set(columns) <= set(there.names):
            version = read_provenance(self._files.source(f"{name}.parquet")).get("schema_version")
            raise InputError(
                f"{self._files.root}/{name}.parquet was written with schema {version}, this program reads "
                f"{SCHEMA_VERSION}; run gazetteer {_WRITER.get(name, 'label')} on it again."
            )

    @contextmanager
    def _readable(self, path: str) -> Iterator[None]:
        """Turn what pyarrow says of a damaged file into a sentence with what helps."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            name = path.removesuffix(".parquet")
            anew = f"run gazetteer {_WRITER.get(name, 'label')} again, which makes it anew"
            drop = f"run gazetteer verify {self._files.root} --drop, then run gazetteer label again"
            raise InputError(
                f"{self._files.root}/{path} is missing or corrupt ({str(error).partition(chr(10))[0]}); "
                f"{drop if '/' in path else anew}."
            ) from error


def _rows(source: Any, columns: Sequence[str] | None, filter: Any) -> pa.Table:
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


def _checked_query(name: str, schema: pa.Schema, columns: Sequence[str] | None, filter: Any) -> pa.Schema:
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


def _shown(fingerprint: dict[str, Any], key: str) -> str:
    return repr(fingerprint[key]) if key in fingerprint else "absent"
