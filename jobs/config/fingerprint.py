"""What makes a run this run: its configuration with every path replaced by a digest of what lies there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gazetteer.data.core.digests import digest_path
from gazetteer.jobs.config.schema import OPERATIONAL, PATHS, RunConfig


def fingerprint(config: RunConfig) -> dict[str, Any]:
    """Flat ``key -> value``; two runs with equal fingerprints come to equal tables."""
    flat: dict[str, Any] = {}
    _flatten(dataclasses.asdict(config), "", flat)
    return {key: value for key, value in sorted(flat.items()) if not _operational(key)}


def portable_config(config: RunConfig) -> dict[str, Any]:
    """The configuration without what names this machine: paths become their last part, operational keys go."""
    flat: dict[str, Any] = {}
    _flatten(dataclasses.asdict(config), "", flat, digests=False)
    return {key: value for key, value in sorted(flat.items()) if not _operational(key)}


def _operational(key: str) -> bool:
    return key in OPERATIONAL or key.split(".")[0] in OPERATIONAL


def _flatten(value: dict[str, Any], prefix: str, flat: dict[str, Any], digests: bool = True) -> None:
    for name, one in value.items():
        key = f"{prefix}{name}"
        if isinstance(one, dict):
            _flatten(one, f"{key}.", flat, digests)
        elif name in PATHS and one and isinstance(one, str) and Path(one).exists():
            flat[key] = digest_path(one) if digests else Path(one).name
        else:
            flat[key] = list(one) if isinstance(one, tuple) else one
