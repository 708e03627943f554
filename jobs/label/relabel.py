"""`gazetteer relabel`: make the final tables of a finished run again under other label settings, and nothing else."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.runs.finals import ALL_FINALS
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.relabelled import LABELS, keep_tables, record_settings
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.provenance import provenance, read_provenance
from gazetteer.data.tables.schemas import FINAL_TABLES
from gazetteer.jobs.config.fingerprint import label_marks, portable_config
from gazetteer.jobs.config.kept import RECORD, run_config
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.label.beside import BESIDE
from gazetteer.jobs.label.card import write_card
from gazetteer.jobs.label.progress.logs import logging_to
from gazetteer.jobs.label.shards import unmade
from gazetteer.labeling.evidence.site_codes import site_of_row

_OF_CALL = re.compile(r"executor|ray_address|limits(\..+)?")
"""Settings that say how a call does its work, and change no table."""


def relabel(run: str | os.PathLike[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Reduce a finished run again under other ``labels.*``: nothing is drawn, heard or detected, no model is loaded.

    The new tables are computed while the old ones stay; then they are put in their place, and the run is marked as
    under way meanwhile. What was there is kept (`gazetteer.data.runs.relabelled`). Stopped anywhere, the same call
    goes on. Tables that other commands made of the old labels are moved aside with them.

    The work is shared out on this machine, whatever GPUs or cluster the run was made with.

    Args:
        overrides: ``labels.KEY=VALUE``, on top of the settings that the run's tables now follow from; and ``executor``,
            ``ray_address`` and ``limits.*``, of this call alone.

    Returns:
        ``run``; ``changed``: key -> [was, now]; ``labels``, ``labelled``: rows and features that have one; ``before``:
        the same of the old tables, None where those are of a call that was cut off, or damaged; ``kept``: the folder
        of those; ``beside``: tables moved aside, with the command that makes them again; ``nothing_to_do``;
        ``seconds``.

    Raises:
        InputError: another key than those; not a finished run, or one that is not as recorded.
        LockedError: another process holds the run.
    """
    begun = time.monotonic()
    store, (config, here) = RunFolder(run), _configurations(run, overrides)
    with store.lock():
        manifest = _finished(store)
        settings, last = label_marks(config), _last(store, manifest)
        whole = last == store.of_tables() and not store.damaged_finals(manifest["tables"])
        before = _counts(store) if whole else {"labels": None, "labelled": None}
        was = {key: value for key, value in last.items() if key.startswith(LABELS)}
        changed = {
            key: [was.get(key), settings.get(key)]
            for key in sorted(was.keys() | settings.keys())
            if (key in was, was.get(key)) != (key in settings, settings.get(key))
        }
        summary: dict[str, Any] = {"run": os.fspath(run), "changed": changed, "before": before}
        if not changed and whole and store.is_complete():
            return {**summary, **before, "kept": None, "beside": {}, "nothing_to_do": True, "seconds": 0.0}
        marks = {**{key: value for key, value in last.items() if not key.startswith(LABELS)}, **settings}
        kept, beside = _make_again(store, config, here, manifest, was if whole else None, settings, marks)
        after = _counts(store)
    return {
        **summary, **after, "kept": kept, "beside": beside, "nothing_to_do": False,
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def _make_again(
    store: RunFolder, config: RunConfig, here: RunConfig, manifest: dict[str, Any], was: dict[str, Any] | None,
    settings: dict[str, Any], marks: dict[str, Any],
) -> tuple[str | None, dict[str, str]]:  # fmt: skip
    """Compute the tables, then put them in place; returns where the old ones are, and what was moved aside.

    `here`: says what does the work. `was`: the label settings of the tables that are there; None: these are of a call
    that did not finish, and nobody wants them kept.
    """
    from gazetteer.jobs.executors.choose import Executor
    from gazetteer.jobs.label.reduce import reduce_run

    start, files = time.monotonic(), open_files(store.path)
    print("relabel: evidence -> labels", file=sys.stderr, flush=True)
    with logging_to(), Executor(here) as executor:
        tables = reduce_run(
            store, executor.run_alone, int(manifest["images"]), _feature_counts(store), config.name, config.labels,
            config.coverage.wanted,
        )  # fmt: skip
    reduced = time.monotonic() - start
    about = provenance(marks, portable_config(config))
    kept: str | None = None
    beside: dict[str, str] = {}
    if was is not None and was != settings:
        kept = keep_tables(files, was, ALL_FINALS)
    store.clear_success()  # from here on the same call, or gazetteer label with these settings, finishes it
    for name, verb in BESIDE.items():
        if store.has_final(name):
            made = read_provenance(files.source(f"{name}.parquet"), "fingerprint")["fingerprint"]
            if made.get("run", made) != marks:  # a copy of it is kept
                files.remove(f"{name}.parquet")
                beside[name] = verb
    if was != settings and store.of_tables() != marks:
        record_settings(files, was or {}, settings, kept, manifest["tables"])
    store.write_json(RECORD, dataclasses.asdict(config))
    written = {name: store.write_final(name, table, about) for name, table in sorted(tables.items())}
    seconds = {**manifest["seconds"], "reduce": round(reduced, 1)}
    store.finish({**manifest, "tables": written, "seconds": seconds, "fingerprint": marks})
    write_card(store)
    return kept, beside


def print_relabelled(summary: dict[str, Any]) -> None:
    """The change as text."""
    if summary["nothing_to_do"]:
        print(f"nothing to do: the tables of {summary['run']} are those of these settings")
    for key, (was, now) in summary["changed"].items():
        print(f"{key}: {was} -> {now}")
    before = summary["before"]
    if before["labels"] is None:
        print("the tables that were there were never finished, or are damaged: nothing of them is kept")
        print(f"{summary['labelled']} features have a label; {summary['labels']} labels")
    else:
        print(
            f"{summary['labelled']} features have a label, before {before['labelled']}; {summary['labels']} labels, "
            f"before {before['labels']}"
        )
    if summary["kept"]:
        print(f"the tables before are in {summary['run']}/{summary['kept']}")
    for name, verb in summary["beside"].items():
        print(
            f"{name}.parquet was of the old labels and lies there too; gazetteer {verb} {summary['run']} makes it anew"
        )


def _configurations(run: str | os.PathLike[str], overrides: Sequence[str]) -> tuple[RunConfig, RunConfig]:
    """The run's own configuration with other label settings, and the one to work by; InputError for other keys."""
    of_labels = [override for override in overrides if override.partition("=")[0].startswith(LABELS)]
    keys = [override.partition("=")[0] for override in overrides if override not in of_labels]
    others = [key for key in keys if not _OF_CALL.fullmatch(key)]
    if "labels" in others:
        raise InputError(f"gazetteer relabel takes label settings one by one: {LABELS}KEY=VALUE.")
    if others:
        raise InputError(
            f"gazetteer relabel changes {LABELS}* alone (and takes executor, ray_address and limits.*); {others[0]} "
            "would need other pictures, codes or segments: run gazetteer label with it in another folder (--reuse "
            "takes over what it can)."
        )
    if RunFolder(run).read_json(RECORD) is None and RunFolder(run).exists():
        raise InputError(f"{run} keeps no configuration (_meta/{RECORD}), as runs of older versions; label it anew.")
    config = run_config(os.fspath(run), of_labels, LABELS)
    # Where the run was made is nothing to its tables: neither that cluster nor the one of a Ray job need be here.
    here = ["ray_address=''", *(override for override in overrides if override not in of_labels)]
    return config, run_config(os.fspath(run), [*of_labels, *here], LABELS)


def _finished(store: RunFolder) -> dict[str, Any]:
    """The manifest of a run that once finished and whose shards are all there; InputError otherwise."""
    if not store.exists():
        raise InputError(f"{store.path} is not a run folder: _meta/run.json is missing; run gazetteer label.")
    manifest = store.manifest() or store.read_json(
        "manifest.json"
    )  # without its mark: it may have been stopped in here
    whole = isinstance(manifest, dict) and manifest.get("shards") == store.shard_ids()
    if whole and not store.is_complete() and store.of_tables() == store.read_json("run.json"):
        whole = not store.damaged_finals(manifest.get("tables") or {})  # nothing was replaced yet
    if not whole or (not store.is_complete() and unmade(store)):
        raise InputError(f"{store.path} is not a finished run; run gazetteer label on it first.")
    if store.is_complete() and manifest.get("fingerprint", store.of_tables()) != store.of_tables():
        raise InputError(
            f"The tables of {store.path} were made with other settings than its _meta/run.json states: that file was "
            f"edited; put it back, or let gazetteer verify {store.path} say more."
        )
    missing = [name for name in FINAL_TABLES if not store.has_final(name)]
    if missing:
        raise InputError(f"{store.path}/{missing[0]}.parquet is missing; run gazetteer label, which makes it anew.")
    return dict(manifest)


def _last(store: RunFolder, manifest: dict[str, Any]) -> dict[str, Any]:
    """The settings that the tables were last finished under; what counts differs where a call since was cut off."""
    return dict(manifest.get("fingerprint") or store.of_tables())


def _feature_counts(store: RunFolder) -> dict[Site, int]:
    """Features of every site, dead ones included, as the run's own table has them."""
    rows = store.read_final("features", list(SITE_COLUMNS)).group_by(list(SITE_COLUMNS)).aggregate([([], "count_all")])
    return {site_of_row(row): int(row["count_all"]) for row in rows.to_pylist()}


def _counts(store: RunFolder) -> dict[str, int]:
    """Labels, and features that have one."""
    labels = store.read_final("labels", ["rank"])["rank"].to_pylist()
    return {"labels": len(labels), "labelled": labels.count(1)}
