"""Where a causal pass is recorded, and what becomes of one with other settings that lies there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.identity import differences

FOLDER = "causal"
"""Below a run, where nothing else is said."""

_OURS = {"starts", "strength", "window"}
"""By what the fingerprint of a pass is told from that of any other run, of which nothing is ever removed here."""


def open_place(run: RunFolder, out: str | None, fingerprint: dict[str, Any], replace: bool) -> RunFolder:
    """The folder of a pass with this fingerprint, started or resumed.

    Args:
        out: the folder; None: ``RUN/causal``.
        replace: remove what a pass with other settings has recorded there, which is said, and begin anew.

    Raises:
        InputError: a pass with other settings is recorded there, or something else is, or the run holds the table of a
            pass that is not there.
        LockedError: with `replace`, when another process works on that pass.
    """
    work = RunFolder(out) if out else run.inside(FOLDER)
    before = work.read_json("run.json")
    if before is not None and not before.keys() >= _OURS:
        raise InputError(f"{work.path} holds a run that is no causal pass; name another folder with --out.")
    if before is None and not out and not replace and run.has_final("causal"):
        raise InputError(
            f"{run.path} holds a causal.parquet, but not {work.path}, from which it was made: this pass would take its "
            "place. Put this one elsewhere with --out FOLDER, or say --replace."
        )
    changes = differences(before, json.loads(json.dumps(fingerprint))) if before and work.shard_ids() else ""
    if changes and not replace:
        raise InputError(
            f"{work.path} was started with other settings ({changes}). Go back to those, put this pass and its table "
            "elsewhere with --out FOLDER, or say --replace, which removes what is recorded there and begins anew."
        )
    if changes:
        _remove(work, before, changes)
    return work.open_or_create(fingerprint)


def _remove(work: RunFolder, before: Mapping[str, Any], changes: str) -> None:
    """Forget all that is recorded of the pass `before`; cut off, the same command goes on with it."""
    with work.lock():
        if work.read_json("run.json") != before:
            raise InputError(f"Another process began {work.path} anew meanwhile; run it again.")
        shards = work.shard_ids()
        print(
            f"causal: removing {work.path} ({len(shards)} groups of features) of other settings ({changes})",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        for shard in shards:
            work.drop_shard(shard)
