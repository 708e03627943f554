"""Tables about labels that other commands write: when the labels become others, they are put aside, and it is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.publish import conform, parquet_bytes
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.schemas import FINAL_TABLES

BESIDE = {"causal": "causal", "examiners": "examine"}
"""Tables about labels that other commands write, and which."""


def labels_of(store: RunFolder) -> tuple[dict[str, Any], str]:
    """What the labels of a run are now: the settings they follow from, and the digest of their table."""
    return store.of_tables(), digest_bytes(open_files(store.path).read("labels.parquet"))


@contextmanager
def still_of(store: RunFolder, labels: tuple[dict[str, Any], str], name: str) -> Iterator[None]:
    """Hold the run while a table about its labels is written, which were read after `labels` was taken (`labels_of`).

    Args:
        name: of the table, in `BESIDE`.

    Raises:
        InputError: the labels have become others since; nothing is written beside those.
        LockedError: another process holds the run, which may be about to change them.
    """
    with store.lock():
        if labels_of(store) != labels:
            raise InputError(
                f"The labels of {store.path} were made again while gazetteer {BESIDE[name]} worked on the ones before, "
                f"so {name}.parquet is not written; run it again."
            )
        yield


def put_aside(store: RunFolder, tables: Mapping[str, pa.Table], about: dict[str, Any]) -> dict[str, str]:
    """Move `BESIDE` aside, before final tables take the place of others; where each lies now, relative to the run.

    Where the run finished with these very tables nothing is moved.

    Args:
        tables, about: the final tables that are about to be written, and their provenance.
    """
    of_labels = [name for name in BESIDE if store.has_final(name)]
    if not of_labels or not _others(store, tables, about):
        return {}
    files, kept = open_files(store.path), {}
    for name in of_labels:
        file = f"{name}.parquet"
        kept[name] = f"_meta/relabelled/{digest_bytes(files.read(file))[:16]}/{file}"
        files.copy(file, kept[name])
        files.remove(file)
    for name, place in kept.items():
        print(
            f"{name}.parquet was of the labels before and lies in {store.path.rstrip('/')}/{place}; gazetteer "
            f"{BESIDE[name]} {store.path} makes it anew", file=sys.stderr, flush=True,
        )  # fmt: skip
    return kept


def _others(store: RunFolder, tables: Mapping[str, pa.Table], about: dict[str, Any]) -> bool:
    """Whether some of the final tables are not what the run last finished with, in its bytes or in its rows."""
    recorded = (store.read_json("manifest.json") or {}).get("tables", {})
    for name, table in tables.items():
        own = conform(name, table, FINAL_TABLES[name])
        if recorded.get(name, {}).get("sha256") == digest_bytes(parquet_bytes(name, own, about)):
            continue
        try:
            if not store.read_final(name).equals(own):
                return True
        except InputError:
            return True
    return False
