"""What other settings gave is not written over: two provenances compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError

SAID = frozenset({"by_step", "others"})
"""Of a provenance, what changes no weight: what else was asked, and other calls that a table holds rows of."""


def refuse_others(path: str | Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """InputError, naming what differs, where two provenances are of other models or settings."""
    changes = [
        f"{key}: {'empty' if was == '' else was} there, {'empty' if value == '' else value} now"
        for part in ("fingerprint", "config")
        for key, was, value in _differing(stored.get(part) or {}, now.get(part) or {})
    ]
    if changes:
        raise InputError(f"{path} is there already and of other settings ({'; '.join(changes)}); give another --out.")


def _differing(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    now = json.loads(json.dumps(now))
    for key in sorted(stored.keys() & now.keys() - SAID):
        was, value = stored[key], now[key]
        if isinstance(was, dict) and isinstance(value, dict):
            yield from _differing(was, value, f"{prefix}{key}.")
        elif was != value:
            yield f"{prefix}{key}", was, value
