"""What other settings gave is not written over: two provenances compared."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError

SAID = frozenset({"by_step", "others", "none_taken"})
"""Of a provenance, what changes no weight: what else was asked, other calls that a table holds rows of, and what came
of it."""
_MAKERS = {"estimator": "attribute score", "run": "attribute features", "method": "attribute edit"}
"""Settings that one command alone has; those of `attribute features` hold a method too."""
_NOTHING = object()


def refuse_others(
    path: str | Path, stored: Mapping[str, Any], now: Mapping[str, Any], unsettled: Collection[str] = ()
) -> None:
    """InputError, naming what differs, where two provenances are of other models, settings or commands.

    What only one of both has is a difference: another command, or another version of it, made it.

    Args:
        stored: its ``fingerprint`` and ``config``; of what it lacks nothing is compared.
        unsettled: settings that `now` does not know yet; their absence is no difference.
    """
    parts = [part for part in ("fingerprint", "config") if part in stored]
    if damaged := [part for part in parts if not isinstance(stored[part], Mapping)]:
        raise InputError(
            f"{path} is there already and does not say what it was made with (its {damaged[0]} is no mapping); give "
            "another --out."
        )
    was, ours = (_maker(about["config"]) if "config" in parts else "" for about in (stored, now))
    if was != ours:
        raise InputError(
            f"{path} is there already, made by {was or 'something else'}, and this is {ours}; give another --out."
        )
    changes = [
        f"{key}: {_said(was)} there, {_said(value)} now"
        for part in parts
        for key, was, value in _differing(stored[part], json.loads(json.dumps(now[part])))
        if not (value is _NOTHING and key in unsettled)
    ]
    if changes:
        raise InputError(f"{path} is there already and of other settings ({'; '.join(changes)}); give another --out.")


def _maker(config: Mapping[str, Any]) -> str:
    return next((f"gazetteer {command}" for key, command in _MAKERS.items() if key in config), "")


def _said(value: Any) -> str:
    return "nothing" if value is _NOTHING else "empty" if value == "" else str(value)


def _differing(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in sorted((stored.keys() | now.keys()) - SAID):
        was, value = stored.get(key, _NOTHING), now.get(key, _NOTHING)
        if isinstance(was, dict) and isinstance(value, dict):
            yield from _differing(was, value, f"{prefix}{key}.")
        elif was != value:
            yield f"{prefix}{key}", was, value
