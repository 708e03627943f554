"""Check a run folder against its own records: every digest, count and schema, changing nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazetteer.data.core.digests import digest_bytes, digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import NotRegularError
from gazetteer.data.runs.finals import ALL_FINALS, parse_manifest
from gazetteer.data.runs.finished import settings_edited
from gazetteer.data.runs.identity import COMMITS, RUN, Identity
from gazetteer.data.runs.plans import GROUPS, Plans, plan_path
from gazetteer.data.runs.shards.commits import Commits
from gazetteer.data.runs.shards.records import (
    Commit,
    may_be_ours,
    part_name,
    read_record,
    recorded_ids,
    shard_of_part,
)
from gazetteer.data.storage.files import Files
from gazetteer.data.tables.provenance import read_provenance
from gazetteer.data.tables.schemas import FINAL_TABLES, PART_TABLES, SCHEMA_VERSION, before_streams

_ITEMS = {"images": "image_id", "failures": "item"}
"""Tables that say what became of an item, and the column that names it."""


@dataclass(frozen=True)
class RunProblem:
    """Something that is not as recorded.

    Attributes:
        where: the file, relative to the run.
        what: what is wrong with it.
        shard: the shard to compute again, or None when no shard is concerned.
    """

    where: str
    what: str
    shard: str | None = None


@dataclass
class Findings:
    """What lies in a run folder.

    Attributes:
        edited: ``run.json`` is not what the shards were made with; all else is compared as if it were.
        complete: the mark of a finished run is there and fits the manifest.
        problems: in the order found; none: everything is as recorded.
        orphans: parts of ours that no commit record names. They do not count, but readers of a whole folder see them.
        strays: what lies beside the parts or the final tables and is none of them, folders included: readers of a whole
            folder choke on it, or count it in.
        rows: per table, rows in committed parts and final tables.
        shards: per sound shard, the item ids its images and failures hold, sorted.
        bytes: of all files read.
    """

    edited: bool = False
    complete: bool = False
    problems: list[RunProblem] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    shards: dict[str, list[str]] = field(default_factory=dict)
    bytes: int = 0


def check_files(files: Files, identity: Identity) -> Findings:
    """Read everything a run has recorded and compare every byte of it.

    Raises:
        InputError: no run was ever started here, or what it was started with cannot be read.
    """
    fingerprint = identity.fingerprint()
    if fingerprint is None:
        raise InputError(f"{files.root} is not a run: it has no _meta/run.json.")
    made = _made_with(files, identity)
    if made is None:
        return _Check(files, identity, fingerprint).run()
    findings = _Check(files, Identity(files, made), made).run()
    findings.edited = True
    findings.problems.insert(0, RunProblem(RUN, settings_edited(made, fingerprint)))
    return findings


def _made_with(files: Files, identity: Identity) -> dict[str, Any] | None:
    """What all shards were made with, by their own parts, where it is not what ``run.json`` says; else None.

    A first plan that is of ``run.json`` speaks for it: then the shards are another run's.
    """
    commits = [commit for shard in recorded_ids(files) if (commit := read_record(files, shard)) is not None]
    runs = {commit.run for commit in commits}
    if len(runs) != 1 or identity.digest() in runs or Plans(files, identity).checked("plan-1")[0] is not None:
        return None
    for path in (part_name(table, commit.shard) for commit in commits for table in sorted(commit.tables)):
        with suppress(FileNotFoundError, NotRegularError, OSError, pa.ArrowException, InputError):
            made = read_provenance(pa.BufferReader(files.read(path))).get("fingerprint")
            if isinstance(made, dict) and digest_json(made) in runs:
                return made
    return None


class _Check:
    def __init__(self, files: Files, identity: Identity, fingerprint: dict[str, Any]) -> None:
        self.files, self.commits, self.findings = files, Commits(files, identity), Findings()
        self.fingerprint, self.of_tables = fingerprint, identity.of_tables() or fingerprint

    def run(self) -> Findings:
        for shard in self.commits.ids():
            self._shard(shard)
        self._others()
        self._finals()
        self._unrecorded()
        return self.findings

    def _shard(self, shard: str) -> None:
        commit = self.commits.record(shard)
        if commit is None:
            what = "is not a commit record, or not the one that was written"
            self.findings.problems.append(RunProblem(f"{COMMITS}/{shard}.json", what, shard))
            return
        if self.commits.of_another_run(commit):
            what = "was written by a run with other settings"
            self.findings.problems.append(RunProblem(f"{COMMITS}/{shard}.json", what, shard))
            return
        if self.commits.groups.unplanned([commit]):
            what = f"does not name the group {shard}; gazetteer compact writes it anew from the records of the groups"
            self.findings.problems.append(RunProblem(plan_path(GROUPS), what))
        items: dict[str, list[str]] = {}
        problems = []
        for table, recorded in sorted(commit.tables.items()):
            path = part_name(table, shard)
            content = self._content(path)
            problem = self._judge(path, content, recorded, PART_TABLES[table])
            if problem is None and table in _ITEMS and content is not None:
                file = pq.ParquetFile(pa.BufferReader(content))
                items[table] = file.read([_ITEMS[table]])[_ITEMS[table]].to_pylist()
            if problem is not None:
                problems.append(RunProblem(path, problem, shard))
        problems = problems or list(self._counts(commit, items))
        if problems:
            self.findings.problems += problems
            return
        self.findings.shards[shard] = sorted(id for ids in items.values() for id in ids)
        self.findings.rows.update({table: part["rows"] for table, part in commit.tables.items()})

    def _counts(self, commit: Commit, items: dict[str, list[str]]) -> Iterator[RunProblem]:
        """What a shard says of itself in two places has to agree."""
        for table in sorted(commit.tables.keys() & commit.info.keys()):
            rows, said = commit.tables[table]["rows"], commit.info[table]
            if rows != said:
                what = f"counts {said} {table}, but the part holds {rows}"
                yield RunProblem(f"{COMMITS}/{commit.shard}.json", what, commit.shard)
        for table, ids in items.items():
            twice = [id for id, count in Counter(ids).items() if count > 1]
            if twice:
                yield RunProblem(part_name(table, commit.shard), f"holds {twice[0]} twice", commit.shard)

    def _others(self) -> None:
        for table in PART_TABLES:
            for name in self.files.names(table):
                shard = shard_of_part(name)
                commit = None if shard is None else self.commits.record(shard)
                if commit is None or table not in commit.tables:
                    ours = shard is not None and may_be_ours(shard)
                    (self.findings.orphans if ours else self.findings.strays).append(f"{table}/{name}")
            self.findings.strays += [f"{table}/{name}" for name in self.files.folders(table)]
        for name in self.files.names(""):
            if name.endswith(".parquet") and name.removesuffix(".parquet") not in ALL_FINALS:
                self.findings.strays.append(name)

    def _finals(self) -> None:
        content = self._content("_meta/manifest.json")
        mark = self._content("_meta/_SUCCESS")
        if mark is None:
            return  # under way: final tables may be those of an earlier finish
        if content is None or mark.decode("ascii", "replace").strip() != digest_bytes(content):
            self.findings.problems.append(RunProblem("_meta/manifest.json", "is not the one the run finished with"))
            return
        manifest = parse_manifest(content)
        if manifest is None:
            self.findings.problems.append(RunProblem("_meta/manifest.json", "is not a manifest"))
            return
        self.findings.complete = True
        shards, ids = set(manifest["shards"]), set(self.commits.ids())
        for shard in sorted(shards - ids):
            self.findings.problems.append(RunProblem(f"{COMMITS}/{shard}.json", "is missing", shard))
        for shard in sorted(ids - shards):
            what = "is a shard that the finished tables do not know"
            self.findings.problems.append(RunProblem(f"{COMMITS}/{shard}.json", what))
        for table, recorded in sorted(manifest["tables"].items()):
            path = f"{table}.parquet"
            problem = self._judge(path, self._content(path), recorded, FINAL_TABLES[table])
            if problem is not None:
                self.findings.problems.append(RunProblem(path, problem))
            else:
                self.findings.rows[table] += recorded["rows"]

    def _unrecorded(self) -> None:
        """Final tables that no manifest vouches for, as the causal one: whole, of their schema and of this run."""
        for table in ALL_FINALS.keys() - FINAL_TABLES.keys():
            content = self._content(f"{table}.parquet")
            if content is None:
                continue
            problem = self._unreadable(content, ALL_FINALS[table])
            if problem is None:
                made: dict[str, Any] = read_provenance(pa.BufferReader(content)).get("fingerprint", self.of_tables)
                made_for = made.get("run", made)
                problem = None if made_for == self.of_tables else "was written for a run with other settings"
            if problem is not None:
                self.findings.problems.append(RunProblem(f"{table}.parquet", problem))
            else:
                self.findings.rows[table] += pq.read_metadata(pa.BufferReader(content)).num_rows

    def _judge(self, path: str, content: bytes | None, recorded: dict[str, Any], schema: pa.Schema) -> str | None:
        """What is wrong with a Parquet file, or None."""
        if content is None:
            return "is missing, or not a regular file"
        if len(content) != recorded["bytes"]:
            return f"has {len(content)} bytes, its record says {recorded['bytes']}"
        if digest_bytes(content) != recorded["sha256"]:
            return "was altered: its digest is not the recorded one"
        # To the last bit what its writer recorded: of its pages there is nothing more to find out.
        problem = self._unreadable(content, schema, pages=False)
        if problem is not None:
            return problem
        rows = pq.read_metadata(pa.BufferReader(content)).num_rows
        if rows != recorded["rows"]:
            return f"has {rows} rows, its record says {recorded['rows']}"
        made = self.of_tables if schema in FINAL_TABLES.values() else self.fingerprint
        if read_provenance(pa.BufferReader(content)).get("fingerprint", made) != made:
            return "was written by a run with other settings"
        return None

    def _unreadable(self, content: bytes, schema: pa.Schema, pages: bool = True) -> str | None:
        """Why a file is no table of this project with these columns, whole, its `pages` too; None: it is."""
        try:
            file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            version = read_provenance(pa.BufferReader(content)).get("schema_version", SCHEMA_VERSION)
            if file.schema_arrow.remove_metadata() in (schema.remove_metadata(), before_streams(schema)):
                for group in range(file.num_row_groups if pages else 0):
                    file.read_row_group(group, use_threads=False)
            else:
                return "does not have the schema of its table"
        except (OSError, pa.ArrowException, InputError) as error:
            return f"cannot be read as a table of this run ({str(error).partition(chr(10))[0]})"
        # An older version is no damage where the columns are the same: most tables do not change with it.
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            return f"has schema version {version}, this program writes {SCHEMA_VERSION}"
        return None

    def _content(self, name: str) -> bytes | None:
        try:
            content = self.files.read(name)
        except (FileNotFoundError, NotRegularError):
            return None
        self.findings.bytes += len(content)
        return content
