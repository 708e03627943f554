"""Edits of weights as small reversible files: indices, old values, new values, and where they come from.

Applying checks that the model holds the old values, removing that it holds the new ones, both bit for bit, so a round
trip leaves the model exactly as it was and an edit of another model is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError

FORMAT = "gazetteer-delta-1"
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Change:
    """What happens to one parameter: at flat `index` (int64, ascending) `old` values become `new` ones."""

    index: Tensor
    old: Tensor
    new: Tensor


@dataclass(frozen=True)
class Delta:
    """A reversible edit.

    Attributes:
        changes: by parameter name.
        provenance: JSON-ready: concept, objective, estimator, scope, share, model digest.
    """

    changes: Mapping[str, Change]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(change.index) for change in self.changes.values())


def ablation(weights: Mapping[str, Tensor], chosen: Mapping[str, Tensor], provenance: dict[str, Any]) -> Delta:
    """The edit that zeroes the chosen weights (flat indices by parameter name)."""
    changes = {}
    for name, index in chosen.items():
        old = weights[name].detach().cpu().reshape(-1)[index].clone()
        changes[name] = Change(index, old, torch.zeros_like(old))
    return Delta(changes, provenance)


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor], provenance: dict[str, Any]) -> Delta:
    """The edit that leads from one set of weights to another; unchanged weights take no part."""
    changes = {}
    for name, old in before.items():
        one, two = old.detach().cpu().reshape(-1), after[name].detach().cpu().reshape(-1)
        index = (_bits(one) != _bits(two)).nonzero().squeeze(1)
        if len(index):
            changes[name] = Change(index, one[index].clone(), two[index].clone())
    return Delta(changes, provenance)


def apply(model: nn.Module, delta: Delta) -> None:
    """Put the new values in; raises InputError, before anything changes, if the model does not hold the old ones."""
    _write(model, {name: (change.index, change.old, change.new) for name, change in delta.changes.items()})


def remove(model: nn.Module, delta: Delta) -> None:
    """Put the old values back; raises InputError, before anything changes, if the model does not hold the new ones."""
    _write(model, {name: (change.index, change.new, change.old) for name, change in delta.changes.items()})


@contextmanager
def applied(model: nn.Module, *deltas: Delta) -> Iterator[Delta]:
    """The model with all edits while open (`compose`); exactly as before afterwards, however it ends."""
    joined = compose(deltas)
    apply(model, joined)
    try:
        yield joined
    finally:
        remove(model, joined)


def compose(deltas: Sequence[Delta]) -> Delta:
    """One edit that does what several do; each was made from the same model, in any order.

    Raises:
        InputError: two edits want different new values for a weight, or started from different old ones.
    """
    changes: dict[str, Change] = {}
    for delta in deltas:
        for name, change in delta.changes.items():
            changes[name] = _merged(name, changes[name], change) if name in changes else change
    if len(deltas) == 1:
        return deltas[0]
    return Delta(changes, {"composed": [delta.provenance for delta in deltas]})


def save_delta(delta: Delta, path: str | Path) -> None:
    """Write a safetensors file: ``<parameter>.index``, ``.old``, ``.new``, and the provenance in its metadata."""
    tensors = {}
    for name, change in delta.changes.items():
        tensors.update({f"{name}.index": change.index, f"{name}.old": change.old, f"{name}.new": change.new})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT, "provenance": json.dumps(delta.provenance, sort_keys=True)}
    save_file({key: value.contiguous() for key, value in tensors.items()}, str(path), metadata=metadata)


def load_delta(path: str | Path) -> Delta:
    """Read what `save_delta` wrote.

    Raises:
        InputError: no such file, or not such a file.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path} is not a weight edit: its metadata lacks format {FORMAT}.")
            names = sorted({key.rpartition(".")[0] for key in file.keys()})  # noqa: SIM118 (not a mapping)
            changes = {
                name: Change(*(file.get_tensor(f"{name}.{part}") for part in ("index", "old", "new"))) for name in names
            }
        provenance = json.loads(metadata["provenance"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"The weight edit {path} cannot be read: {str(error) or type(error).__name__}.") from error
    for name, change in changes.items():
        _check_change(name, change, path)
    return Delta(changes, provenance)


def check_values(
    delta_values: Mapping[str, tuple[Tensor, Tensor]],
    shape_of: Callable[[str], int | None],
    read: Callable[..., Tensor],
) -> None:
    """Raise InputError unless the weights at each index hold the expected values, bit for bit.

    Args:
        delta_values: per parameter (index, expected).
        shape_of: how many weights a parameter has, None if there is none of that name.
        read: (name, index) -> its values there.
    """
    for name, (index, expected) in delta_values.items():
        size = shape_of(name)
        if size is None:
            raise InputError(f"The edit does not fit this model: it has no weights {name}.")
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= size):
            raise InputError(f"The edit does not fit this model: {name} has {size} weights.")
        found = read(name, index)
        if found.dtype != expected.dtype:
            raise InputError(f"The edit is for {name} in {expected.dtype}; this model holds {found.dtype}.")
        wrong = int((_bits(found.cpu()) != _bits(expected)).sum())
        if wrong:
            raise InputError(
                f"{wrong} of {len(index)} weights of {name} are not what the edit expects: it is for another model, "
                "or another edit is in place."
            )


def _write(model: nn.Module, values: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> None:
    parameters = dict(model.named_parameters())
    check_values(
        {name: (index, before) for name, (index, before, _) in values.items()},
        lambda name: parameters[name].numel() if name in parameters else None,
        lambda name, index: parameters[name].detach().reshape(-1)[index.to(parameters[name].device)],
    )
    with torch.no_grad():
        for name, (index, _, after) in values.items():
            weight = parameters[name]
            weight.view(-1)[index.to(weight.device)] = after.to(weight.device)


def _merged(name: str, one: Change, other: Change) -> Change:
    index = torch.cat([one.index, other.index])
    unique, inverse = index.unique(return_inverse=True)
    old, new = torch.cat([one.old, other.old]), torch.cat([one.new, other.new])
    if one.old.dtype != other.old.dtype:
        raise InputError(f"Two edits hold {name} in different types, {one.old.dtype} and {other.old.dtype}.")
    merged = Change(unique, old.new_empty(len(unique)), new.new_empty(len(unique)))
    merged.old[inverse], merged.new[inverse] = old, new
    for mine, all_, what in ((merged.old, old, "start from"), (merged.new, new, "want")):
        if not torch.equal(_bits(mine[inverse]), _bits(all_)):
            raise InputError(f"Two edits {what} different values of the same weights of {name}; they do not compose.")
    return merged


def _check_change(name: str, change: Change, path: str | Path) -> None:
    shape = change.index.shape
    if change.index.dtype != torch.int64 or len(shape) != 1 or change.old.shape != shape or change.new.shape != shape:
        raise InputError(f"The weight edit {path} is damaged at {name}.")
    if change.old.dtype != change.new.dtype:
        raise InputError(f"The weight edit {path} is damaged at {name}: two types.")


def _bits(values: Tensor) -> Tensor:
    """The bit patterns: -0.0 differs from 0.0, and NaN equals itself."""
    return values.contiguous().view(_INTEGERS[values.element_size()])
