"""Tables about labels that other commands write: when the labels become others, they are put aside, and it is said."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
