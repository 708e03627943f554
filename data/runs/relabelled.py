"""A finished run whose tables were made again under other label settings: what was changed, and what was there before.

Shards keep the fingerprint that they were committed with; the final tables follow from it and from the label settings
recorded here, which count instead. What the new tables replaced lies below ``_meta/relabelled/``, by the digest of the
settings it was made with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.sealed import seal, unseal
from gazetteer.data.storage.files import Files

LABELS = "labels."
"""How the keys of the settings begin that only the reduction reads."""

RECORD = "_meta/relabelled.json"


def read_record(files: Files) -> dict[str, Any] | None:
    """``labels``: the settings that count; ``before``: a row for each set of tables that was replaced; None: none was.

    Raises:
        InputError: the record is damaged.
    """
    try:
        content = files.read(RECORD)
    except FileNotFoundError:
        return None
    record = unseal(content)
    if record is None or not isinstance(record.get("labels"), dict) or not isinstance(record.get("before"), list):
        raise InputError(
            f"{files.root}/{RECORD} is corrupt; remove it, then gazetteer relabel {files.root} --set … makes the "
            "tables again."
        )
    return record


def label_settings(files: Files) -> dict[str, Any] | None:
    """The label settings that count instead of those that the run was started with, or None."""
    record = read_record(files)
    return None if record is None else dict(record["labels"])


def keep_tables(files: Files, settings: Mapping[str, Any], tables: Iterable[str]) -> str:
    """Copy final tables, those that are there, to the folder of the label settings they were made with; returns it."""
    folder = f"_meta/relabelled/{digest_json(dict(settings))[:16]}"
    for name in sorted(tables):
        with suppress(FileNotFoundError):
            files.copy(f"{name}.parquet", f"{folder}/{name}.parquet")
    return folder


def record_settings(
    files: Files, before: Mapping[str, Any], labels: Mapping[str, Any], kept: str | None, recorded: Mapping[str, Any]
) -> None:
    """Let other label settings count.

    Args:
        before, labels: the settings until now and from now on, by key.
        kept: where the tables made under those before were copied; None: none were, for they were never finished.
        recorded: their digests.
    """
    rows = (read_record(files) or {"before": []})["before"]
    if kept is not None:
        rows = [*rows, {"labels": dict(before), "kept": kept, "tables": dict(recorded)}]
    files.replace(RECORD, seal({"labels": dict(labels), "before": rows}))
