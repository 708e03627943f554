"""What makes a run this run: its settings that change tables, with every path replaced by a digest of what lies there.

Everything here is read off the settings themselves (`gazetteer.data.core.settings.About`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gazetteer.data.core.digests import digest_json, digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Effect, Setting, walk
from gazetteer.data.runs.relabelled import LABELS
from gazetteer.jobs.config.paths import is_there
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.sae.model.digests import digest_sae

SETTINGS: Mapping[str, Setting] = {setting.key: setting for setting in walk(RunConfig)}
"""Every key of the configuration."""

TABLES = frozenset({Effect.SELECTION, Effect.PICTURES, Effect.CODES, Effect.SEGMENTS, Effect.LABELS})
"""What a labelling run comes to; the other effects leave its tables alone."""

REUSABLE = frozenset({Effect.PICTURES, Effect.SEGMENTS})
"""What decides the images and segments of a prompt and seed, which another run may take over."""


def fingerprint_of(config: RunConfig) -> dict[str, Any]:
    """Flat ``key -> value`` of the settings that change tables; runs with equal fingerprints come to equal tables."""
    return {key: _digested(config, key, value) for key, value in sorted(_values(config))}


def as_begun(fingerprint: Mapping[str, Any], config: RunConfig, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint as a run has it that was begun when folders of given pictures were digested whole.

    Args:
        recorded: the run's own; nothing is changed unless these folders are still as it says.
    """
    pictures = config.pictures
    folders = {f"pictures.{pictures.kind}": pictures.path, "pictures.images": pictures.images}
    whole = {
        key: recorded[key]
        for key, folder in folders.items()
        if key in recorded and recorded[key] != fingerprint.get(key) and Path(folder).is_dir()
        if recorded[key] == digest_path(folder)
    }
    return {**fingerprint, **whole}


def label_marks(config: RunConfig) -> dict[str, Any]:
    """Those of `fingerprint` that only the reduction reads: the group ``labels``."""
    return {key: _digested(config, key, value) for key, value in sorted(_values(config)) if key.startswith(LABELS)}


def marks_of(config: RunConfig, effects: Collection[Effect], *sections: str) -> dict[str, Any]:
    """Those of `fingerprint_of` in some sections that have one of the effects, but for what only moves last bits."""
    names = keys_of(effects, last_bits=False)
    values = (pair for pair in sorted(_values(config)) if pair[0] in names and pair[0].partition(".")[0] in sections)
    return {key: _digested(config, key, value) for key, value in values}


def portable_config(config: RunConfig) -> dict[str, Any]:
    """The same without what names this machine: paths become their last part."""
    values = sorted(_values(config))
    return {key: _replaced(SETTINGS[key], value, lambda path: Path(path).name) for key, value in values}


def keys_of(effects: Collection[Effect], last_bits: bool = True) -> frozenset[str]:
    """The keys with one of these effects.

    Args:
        last_bits: with those that change no more than rounding.
    """
    return frozenset(
        key
        for key, setting in SETTINGS.items()
        if setting.about.effect in effects and (last_bits or not setting.about.last_bits)
    )


def picture_digest(fingerprint: Mapping[str, Any]) -> str:
    """A digest of all that shapes a picture besides prompt and seed; names its image ids.

    What changes no more than the last bits of a picture (threads, the kind of device) leaves its name alone.
    """
    names = keys_of({Effect.PICTURES}, last_bits=False)
    return digest_json({key: value for key, value in fingerprint.items() if key in names})


def differing(ours: Mapping[str, Any], theirs: Any, effects: Collection[Effect], last_bits: bool = True) -> list[str]:
    """The keys with one of these effects by which two fingerprints differ, sorted; all, if `theirs` is none.

    Args:
        last_bits: with those that change no more than rounding.
    """
    theirs = theirs if isinstance(theirs, dict) else {}
    keys = keys_of(effects, last_bits) & (ours.keys() | theirs.keys())
    # A key that one side lacks differs even from a null on the other.
    return sorted(key for key in keys if (key in ours, ours.get(key)) != (key in theirs, theirs.get(key)))


def _values(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """The keys that change tables and what of their values counts; a late setting at its default does not."""
    for key, setting in SETTINGS.items():
        if setting.about.effect not in TABLES:
            continue
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        value = setting.about.kind(value) if setting.about.kind else value
        if not (setting.about.late and value == setting.default):
            yield key, _plain(value)


def _plain(value: Any) -> Any:
    """What JSON makes of a value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _digested(config: RunConfig, key: str, value: Any) -> Any:
    try:
        if key == f"pictures.{config.pictures.kind}":
            from gazetteer.data.inputs.given.open import annotations_digest  # which loads what reads pictures

            return annotations_digest(config.pictures)
        return _replaced(SETTINGS[key], value, digest_sae if key == "saes" else digest_path)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


def _replaced(setting: Setting, value: Any, replace: Callable[[str], str]) -> Any:
    """A value with what names a file or folder that is there replaced, also in a mapping of names to paths."""
    if isinstance(value, Mapping) and setting.about.path:
        return {name: _replaced(setting, path, replace) for name, path in value.items()}
    return replace(value) if is_there(setting.about, value) else value
