"""Edits of weights at rest: small safetensors files that say what they change, from what to what, and why."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gazetteer.attribution.edits.delta import Change, Delta
from gazetteer.attribution.scores.same import refuse_others
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replaced_file
from gazetteer.data.core.files.regular import require_file
from gazetteer.data.core.plain_json import once

FORMAT = "gazetteer-delta-1"
PARTS = ("index", "old", "new")
DIGEST = "tensors"
"""In the metadata: a digest of all tensors; edits from before it was written have none."""


def save_delta(delta: Delta, path: str | Path) -> None:
    """Write a safetensors file: ``<parameter>.index``, ``.old``, ``.new``; provenance and digest in its metadata.

    All of it is there or what was there before; GazetteerError where it cannot be written.
    """
    tensors = {
        f"{name}.{part}": getattr(change, part).contiguous()
        for name, change in delta.changes.items()
        for part in PARTS
    }  # fmt: skip
    provenance = json.dumps(delta.provenance, sort_keys=True)
    metadata = {"format": FORMAT, "provenance": provenance, DIGEST: _digest(delta.changes)}
    with replaced_file(Path(path)) as partial:
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = partial.stat().st_mode  # the library gives its files to their owner alone
        save_file(tensors, str(partial), metadata=metadata)
        partial.chmod(mode)


def require_same(path: str | Path, provenance: Mapping[str, Any], unsettled: Collection[str] = ()) -> None:
    """Look for what `save_delta` must not replace.

    Args:
        unsettled: settings that `provenance` does not state yet.

    Raises:
        InputError: the file there is no edit, or one of another model, other settings or another command.
    """
    if Path(path).exists():
        stored = load_delta(path).provenance
        refuse_others(path, {"fingerprint": {}, "config": {}, **stored}, provenance, unsettled)


def load_delta(path: str | Path) -> Delta:
    """Read what `save_delta` wrote.

    Raises:
        InputError: no such file, not such a file, one whose tensors are not those that were written, that changes
            nothing, or whose changes could not be taken back (`Delta`).
    """
    require_file("The weight edit", path, "a file of gazetteer attribute score or edit")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path} is not a weight edit: its metadata lacks format {FORMAT}.")
            parts: dict[str, set[str]] = defaultdict(set)
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                name, _, part = key.rpartition(".")
                parts[name].add(part)
            for name, stored in parts.items():
                if stored != set(PARTS):
                    raise InputError(
                        f"The weight edit {path} is damaged: of {name} it holds {', '.join(sorted(stored))} "
                        f"instead of {', '.join(PARTS)}."
                    )
            changes = {name: Change(*(file.get_tensor(f"{name}.{p}") for p in PARTS)) for name in sorted(parts)}
        provenance = json.loads(metadata["provenance"], object_pairs_hook=once)
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"The weight edit {path} cannot be read: {str(error) or type(error).__name__}.") from error
    if not isinstance(provenance, dict) or not isinstance(provenance.get("config", {}), dict):
        raise InputError(f"The weight edit {path} is damaged: its provenance is not a mapping.")
    try:
        delta = Delta(changes, provenance)
    except InputError as error:
        raise InputError(f"The weight edit {path} is damaged. {error}") from error
    if DIGEST in metadata and metadata[DIGEST] != _digest(changes):
        raise InputError(f"The weight edit {path} is damaged: its numbers are not those that were written.")
    if not len(delta):
        raise InputError(f"The weight edit {path} changes no weight; make it anew, or leave it out.")
    return delta


def _digest(changes: Mapping[str, Change]) -> str:
    """Of the names, types and bits of all that is changed, in the order of the names."""
    hashed = hashlib.sha256()
    for name in sorted(changes):
        for part in PARTS:
            tensor: Tensor = getattr(changes[name], part).detach().cpu().contiguous()
            hashed.update(f"{name}.{part} {tensor.dtype} {list(tensor.shape)}\n".encode("utf-8", "surrogatepass"))
            hashed.update(tensor.view(torch.uint8).numpy().data)
    return f"sha256:{hashed.hexdigest()}"
