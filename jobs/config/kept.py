"""The configuration that a run keeps of itself, for the verbs that read the run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import is_ours, names_code
from gazetteer.data.core.settings import About, from_json, walk
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import SETTINGS, fingerprint_of
from gazetteer.jobs.config.overrides import apply_override
from gazetteer.jobs.config.paths import is_there
from gazetteer.jobs.config.schema import RunConfig, load_config

RECORD = "config.json"
"""Where a run keeps the configuration it was last worked on with, below ``_meta``."""


def to_keep(config: RunConfig) -> dict[str, Any]:
    """What a run keeps of its configuration: paths that were typed from here whole, as it is read from anywhere."""
    raw = dataclasses.asdict(config)
    for key, setting in SETTINGS.items():
        *groups, name = key.split(".")
        group = _value(raw, ".".join(groups)) if groups else raw
        if setting.about.path and isinstance(group, dict):
            group[name] = _whole(setting.about, group[name])
    return raw


def changed_keys(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The keys of settings that two kept configurations have differently, in order."""
    return [key for key in SETTINGS if _value(before, key) != _value(after, key)]


def run_config(run: str | Path, overrides: Sequence[str] = (), heard: str = "") -> RunConfig:
    """The configuration that a run was last worked on with, with overrides; of older runs, the default one.

    Args:
        heard: how the keys begin that the caller goes by; code that others name is run by nobody.

    Raises:
        InputError: as `load_config`; or the run names code of somebody's, which a run folder may not make us execute.
    """
    raw = RunFolder(run).read_json(RECORD)
    if raw is None:
        return load_config(None, overrides)
    try:
        from_json(RunConfig, json.dumps(raw))
    except InputError as error:
        raise InputError(
            f"The configuration that {run} keeps is not one of this version; name its own with --config. {error}"
        ) from error
    _rehoused(raw, RunFolder(run).read_json("run.json") or {})
    for override in overrides:
        apply_override(raw, override, RunConfig)
    config = from_json(RunConfig, json.dumps(raw))
    for known in walk(RunConfig):
        value: Any = config
        for name in known.key.split("."):
            value = getattr(value, name, None)
        named = isinstance(value, str) and known.key.startswith(heard) and names_code(value)
        keys = [override.partition("=")[0] for override in overrides]
        given = any(known.key == key or known.key.startswith(f"{key}.") for key in keys)  # by whom it will run
        if named and not given and not known.about.path and not is_ours(value):
            raise InputError(
                f"{run} was made with {known.key}={value}, which is code; to let it run, name the run's configuration "
                "with --config."
            )
    return config


def _rehoused(raw: dict[str, Any], recorded: Any) -> None:
    """Where a file that a run names is not here (the run was copied), take the embedded one if it is the same.

    Changes `raw`. By digest: ``recorded`` is the run's fingerprint.
    """
    lost = [pattern for pattern, path in raw["saes"].items() if _lost(path)] if isinstance(raw["saes"], dict) else []
    missing = [key for key, setting in SETTINGS.items() if setting.about.path and _lost(_value(raw, key))]
    if not missing and not lost:
        return
    embedded = load_config()
    if lost and isinstance(recorded.get("saes"), dict):
        known = _embedded_saes(Path(str(embedded.saes)))
        raw["saes"] |= {name: known[digest] for name in lost if (digest := recorded["saes"].get(name)) in known}
    digests = fingerprint_of(embedded)
    for key in missing:
        *groups, name = key.split(".")
        if key in digests and digests[key] == recorded.get(key):
            group, value = raw, embedded
            for part in groups:
                group, value = group[part], getattr(value, part)
            group[name] = getattr(value, name)


def _embedded_saes(folder: Path) -> dict[str, str]:
    """The embedded set of autoencoders and each one in it, by digest."""
    places = (folder, *(place for place in sorted(folder.iterdir()) if place.is_dir()))
    return {digest_path(str(place)): str(place) for place in places}


def _value(raw: Any, key: str) -> Any:
    for name in key.split("."):
        raw = raw.get(name) if isinstance(raw, dict) else None
    return raw


def _whole(about: About, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(about, path) for name, path in value.items()}
    return os.path.abspath(value) if is_there(about, value) else value


def _lost(value: Any) -> bool:
    """Whether this is the whole path of something that is not here."""
    return isinstance(value, str) and Path(value).is_absolute() and not Path(value).exists()
