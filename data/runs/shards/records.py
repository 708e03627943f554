"""The record of a shard that is committed: how it and the shard's parts are named, and what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.core.files.regular import NotRegularError
from gazetteer.data.runs.identity import COMMITS
from gazetteer.data.runs.sealed import unseal
from gazetteer.data.storage.files import Files
from gazetteer.data.tables.schemas import PART_TABLES

NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_MADE = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class Commit:
    """One shard's commit record.

    Attributes:
        shard: the shard's id.
        tables: per table its part's ``rows``, ``bytes`` and ``sha256``.
        info: what the writer wanted kept with it (counts, timings).
        run: names the run that it is of (`gazetteer.data.runs.identity.Identity.digest`).
    """

    shard: str
    tables: dict[str, dict[str, Any]]
    info: dict[str, Any] = field(default_factory=dict)
    run: str = ""


def part_name(table: str, shard_id: str) -> str:
    """Where a shard's part of a table lies in the run."""
    return f"{table}/part-{shard_id}.parquet"


def shard_of_part(name: str) -> str | None:
    """The shard that a part's base name names, or None when it is no part's name."""
    match = re.fullmatch(rf"part-({NAME})\.parquet", name)
    return match and match[1]


def may_be_ours(shard_id: str) -> bool:
    """Whether a shard's id has the form of those that runs give their shards, a digest of what is in it.

    A part that no record names is left by a writer that was killed only where this holds; else somebody put it there.
    """
    return _MADE.fullmatch(shard_id) is not None


def check_name(text: str) -> None:
    """GazetteerError unless `text` can name a shard or a table: letters, digits, ``-``, ``_`` and ``.``."""
    if not re.fullmatch(NAME, text):
        raise GazetteerError(f"{text!r} is not a usable name; letters, digits, '-', '_' and '.' are.")


def record_name(shard_id: str) -> str:
    """Where a shard's record lies in the run."""
    return f"{COMMITS}/{shard_id}.json"


def recorded_ids(files: Files) -> list[str]:
    """Sorted ids of everything that has a record, good or not: shards and groups of them."""
    return [name.removesuffix(".json") for name in files.names(COMMITS) if name.endswith(".json")]


def read_record(files: Files, shard_id: str) -> Commit | None:
    """The shard's record, or None when it is absent, not one, or not what was written."""
    try:
        record = unseal(files.read(record_name(shard_id))) or {}
        commit = Commit(record["shard"], dict(record["tables"]), dict(record["info"]), record["run"])
        whole = all(is_description(part) for part in commit.tables.values())
    except (FileNotFoundError, NotRegularError, TypeError, KeyError, ValueError):
        return None
    known = whole and commit.tables.keys() <= PART_TABLES.keys()
    return commit if known and commit.shard == shard_id else None


def is_description(part: Any) -> bool:
    """Whether a record's entry of a table is one: rows, bytes and a digest."""
    counts = [part["rows"], part["bytes"]]
    return all(type(count) is int and count >= 0 for count in counts) and isinstance(part["sha256"], str)
