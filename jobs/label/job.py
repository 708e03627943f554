"""The labelling job: plan, carry out what is missing, draw more pictures where features lack them, reduce, finish."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import import_named
from gazetteer.data.core.settings import Effect
from gazetteer.data.inputs.classifier import load_classifier
from gazetteer.data.inputs.given.contents import keep_contents
from gazetteer.data.inputs.given.open import open_given
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.identity import differences, of_labels_alone
from gazetteer.data.runs.relabelled import record_settings
from gazetteer.data.storage.open import open_files
from gazetteer.jobs.config.fingerprint import (
    REUSABLE,
    as_begun,
    differing,
    fingerprint_of,
    keys_of,
    label_marks,
    picture_digest,
)
from gazetteer.jobs.config.kept import RECORD, changed_keys, to_keep
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.label.failures import open_failures
from gazetteer.labeling.vocabulary.synonyms import keep_synonyms

log = logging.getLogger(__name__)


def label(
    config: RunConfig, out: str | Path, *, retry_failed: bool = False, reuse: str | Path | None = None
) -> dict[str, Any]:
    """Carry a labelling run to its end, from wherever it stands.

    A finished run whose tables are as recorded costs nothing: neither Ray nor a model is started. Otherwise every
    part is compared with its digest, and what is damaged is done again.

    Args:
        retry_failed: try again exactly the pictures that failed.
        reuse: another run, whose images and segments are taken over where this one wants the same pictures
            (`gazetteer.labeling.pipeline.reuse`); the tables are the same without it, only later.

    Returns:
        the manifest: counts, seconds per stage, tables with their digests, pictures that still fail; and
        ``nothing_to_do``: whether all of it was there already; ``heard``: settings that later commands on the run go
        by from now on, and went by others before.

    Raises:
        InputError: bad configuration or input, or a run that was started with other settings (of labels alone: one
            that has tables already).
        LockedError: another process holds the run.
        GazetteerError: too many pictures failed, no space left, or workers that keep dying.
    """
    store = RunFolder(out)
    fingerprint = fingerprint_of(config)
    pool = plan.read_pool(config)
    if config.pictures.kind:
        if reuse is not None:
            raise InputError(
                "Pictures are given (pictures.*) and read anew; there is nothing for --reuse to take over."
            )
        # Fewer are there than were asked for: progress and shares of failures count what there is.
        fingerprint = as_begun(fingerprint, config, store.read_json("run.json") or {})
        config = replace(config, images=min(config.images, len(open_given(config.pictures, config.seed))))
    if reuse is not None:
        require_reusable(fingerprint, reuse)
    fresh = not store.exists()
    _admit(store, config, fingerprint, fresh)
    store.open_or_create(fingerprint)
    with store.lock():
        if config.pictures.kind:
            _hold_pictures(store, config, fingerprint)
        manifest = _finished(store)
        if manifest is not None and not (retry_failed and open_failures(store)):
            return {**manifest, "nothing_to_do": True, "heard": _hear(store, config)}
        # Only from here on are the models' libraries needed: a second to load, and a gigabyte.
        from gazetteer.jobs.label.run import LabelRun

        if not fresh:
            _check_begun(store, config)
        store.clear_success()
        heard = _keep(store, config)
        store.committed(verify=True)
        with LabelRun(config, store, fingerprint, reuse) as run:
            run.carry_out(pool, retry_failed)
            before = store.shard_ids()
            if before != sorted(store.committed(verify=True)):  # damaged while the run went on
                run.carry_out(pool, False)
            return {**run.finish(), "nothing_to_do": False, "heard": heard}


def _others(store: RunFolder, config: RunConfig) -> list[str]:
    """Settings that later commands alone go by, where they are others than the run keeps."""
    before, later = store.read_json(RECORD), keys_of({Effect.MEASUREMENTS})
    kept = json.loads(json.dumps(to_keep(config)))
    return [key for key in changed_keys(before, kept) if key in later] if before is not None else []


def _hear(store: RunFolder, config: RunConfig) -> list[str]:
    """Take over on a finished run what later commands alone go by, and nothing where that is as it was."""
    others = _others(store, config)
    if others:
        store.write_json(RECORD, to_keep(config))
    return others


def _keep(store: RunFolder, config: RunConfig) -> list[str]:
    """Write down what later commands on the run read and no table has; of these settings, those that are others."""
    others = _others(store, config)
    store.write_json(RECORD, to_keep(config))
    if not config.pictures.kind:  # given masks have names of their own, whatever the vocabulary
        keep_synonyms(store, config.vocabulary.path)
    return others


def _hold_pictures(store: RunFolder, config: RunConfig, fingerprint: Mapping[str, Any]) -> None:
    """Refuse given pictures that are not those that the run was started with, but for what failed."""
    given = open_given(config.pictures, config.seed)
    items = given.items(config.images, picture_digest(fingerprint))
    keep_contents(store, items, given.files, open_failures(store))


def _check(config: RunConfig) -> None:
    from gazetteer.labeling.pipeline.checks import check_inputs

    _check_looks(config)
    check_inputs(config.stages, here=_works_here(config))


def _check_begun(store: RunFolder, config: RunConfig) -> None:
    """As `_check` where a run has nothing yet; of one that has shards, what only its tables still need."""
    if store.shard_ids():
        _check_looks(config)
    else:
        _check(config)


def _admit(store: RunFolder, config: RunConfig, fingerprint: Mapping[str, Any], fresh: bool) -> None:
    """Refuse what a new run could not do before it leaves a trace; hear what an old one may still hear."""
    if fresh:
        _check(config)
    else:
        _take_label_settings(store, config, fingerprint)


def _works_here(config: RunConfig) -> bool:
    return not config.ray_address or config.executor == "serial"


def _check_looks(config: RunConfig) -> None:
    """Refuse a classifier of looks that the tables could not be made with, before any picture is made for them."""
    name, key = config.labels.style_classifier, "labels.style_classifier"
    if name and _works_here(config):
        load_classifier(name, config.labels.styles, key)
    elif name:  # on a cluster's own machines it may need what this one lacks
        import_named(name, key)


def _take_label_settings(store: RunFolder, config: RunConfig, fingerprint: Mapping[str, Any]) -> None:
    """Let other label settings count in a run that never came to its tables, which alone they shape.

    So a run that stopped at its tables goes on with a setting that was corrected; shards keep what they were made with.
    """

    def wanted() -> bool:
        begun = bool(store.shard_ids()) and store.read_json("manifest.json") is None
        return begun and of_labels_alone(store.of_tables() or {}, fingerprint)

    if not wanted():
        return
    _check_looks(config)
    with store.lock():
        if wanted():
            said = differences(store.of_tables() or {}, fingerprint)
            record_settings(open_files(store.path), {}, label_marks(config), None, {})
            print(f"{said}: the run goes on, for its tables alone follow from this", file=sys.stderr, flush=True)


def _finished(store: RunFolder) -> dict[str, Any] | None:
    """The manifest of a run that needs nothing: every part there in its size, the final tables as recorded."""
    manifest = store.manifest()
    if manifest is None or set(manifest["shards"]) != set(store.committed()):
        return None
    lacking = [name for name in plan.PASSES if plan.read_pass(store, name) is None]
    if lacking:
        log.warning("_meta/%s.json is missing and is made again.", lacking[0])
        return None
    problems = store.damaged_finals(manifest["tables"])
    for name, problem in problems.items():
        log.warning("%s.parquet %s and is made again.", name, problem)
    return None if problems else manifest


def require_reusable(fingerprint: Mapping[str, Any], base: str | Path) -> None:
    """InputError, naming the keys, unless `base` is a run whose pictures and segments are those of these settings."""
    store = RunFolder(base)
    if not store.exists():
        raise InputError(f"{base} is not a run folder: _meta/run.json is missing; nothing can be reused.")
    others = differing(fingerprint, store.read_json("run.json"), REUSABLE)
    if others:
        raise InputError(f"The pictures or segments of {base} were made with other settings: {', '.join(others)}.")
