"""Edits of weights that can be taken back: places, old values, new values, and where they come from.

Applying checks that the model holds the old values, removing that it holds the new ones, both bit for bit, so a round
trip leaves the model exactly as it was and an edit of another model is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.problem import check_here
from gazetteer.data.core.errors import InputError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types that weights of an edit may have."""
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


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
        provenance: JSON-ready: concept, objective, estimator, scope, fraction, model digest.

    Raises:
        InputError: a change that could not be applied and taken back exactly: places that are repeated, not ascending
            or below 0, values of another number or type than the places, or values that are not finite.
    """

    changes: Mapping[str, Change]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, change in self.changes.items():
            if fault := _fault(change):
                raise InputError(f"The change of {name} is not a valid one: {fault}.")

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
        old_values, new_values = old.detach().cpu().reshape(-1), after[name].detach().cpu().reshape(-1)
        index = (bits(old_values) != bits(new_values)).nonzero().squeeze(1)
        if len(index):
            changes[name] = Change(index, old_values[index].clone(), new_values[index].clone())
    return Delta(changes, provenance)


def apply(model: nn.Module, delta: Delta) -> None:
    """Put the new values in; raises InputError, before anything changes, if the model does not hold the old ones."""
    _write(model, ends_of(delta))


def remove(model: nn.Module, delta: Delta) -> None:
    """Put the old values back; raises InputError, before anything changes, if the model does not hold the new ones."""
    _write(model, ends_of(delta, undo=True))


@contextmanager
def applied(model: nn.Module, *deltas: Delta, read_in: torch.dtype | None = None) -> Iterator[Delta]:
    """The model with all edits while open (`compose`), in its types (`in_types`); exactly as before afterwards, however
    it ends.

    Args:
        read_in: the type that its weights were rounded to before they were put into the one that it computes in.
    """
    dtypes = {name: weight.dtype for name, weight in model.named_parameters()}
    read = [in_types(delta, lambda _: read_in) for delta in deltas]
    joined = compose([in_types(delta, dtypes.get) for delta in read])
    _write(model, ends_of(joined), made_in(*deltas))
    try:
        yield joined
    finally:
        remove(model, joined)


def in_types(delta: Delta, dtype_of: Callable[[str], torch.dtype | None]) -> Delta:
    """The edit in the types of a model's weights, old values and new ones rounded to them.

    A model that was read into a smaller type than its files have holds their values rounded; an edit that holds them
    as the files do is thus for it too, and putting its old values back leaves it as it was.

    Args:
        dtype_of: parameter name -> its type, None where there is no such parameter (left for `apply` to refuse).

    Raises:
        InputError: a value that the model's type cannot reach.
    """
    changes: dict[str, Change] = {}
    for name, change in delta.changes.items():
        dtype = dtype_of(name) or change.old.dtype
        if dtype == change.old.dtype:
            changes[name] = change
            continue
        old, new = change.old.to(dtype), change.new.to(dtype)
        for values, which in ((old, "old"), (new, "new")):
            if not bool(values.isfinite().all()):
                raise InputError(
                    f"The edit's {which} values of {name} are beyond what {dtype} holds, in which this model is."
                )
        changes[name] = Change(change.index, old, new)
    same = all(change is delta.changes[name] for name, change in changes.items())
    return delta if same else Delta(changes, delta.provenance)


def compose(deltas: Sequence[Delta]) -> Delta:
    """One edit that does what several do; each was made from the same model, in any order.

    Raises:
        InputError: two edits want different new values for a weight, or started from different old ones. Values of
            different types are compared in one that holds both exactly.
    """
    changes: dict[str, Change] = {}
    for delta in deltas:
        for name, change in delta.changes.items():
            changes[name] = _merged(name, changes[name], change) if name in changes else change
    if len(deltas) == 1:
        return deltas[0]
    return Delta(changes, {"composed": [delta.provenance for delta in deltas]})


Ends = dict[str, tuple[Tensor, Tensor, Tensor]]
"""Per parameter the index, the values before and those after."""


def ends_of(delta: Delta, undo: bool = False) -> Ends:
    """What an edit, or taking it out, leads from and to."""
    return {n: (c.index, *((c.new, c.old) if undo else (c.old, c.new))) for n, c in delta.changes.items()}


def made_in(*deltas: Delta) -> dict[str, torch.dtype]:
    """Per parameter the type that its edits hold."""
    return {name: change.old.dtype for delta in deltas for name, change in delta.changes.items()}


def check_values(
    ends: Ends,
    shape_of: Callable[[str], int | None],
    read: Callable[..., Tensor],
    made: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Raise InputError unless the weights at each index hold the values before, bit for bit.

    Args:
        shape_of: how many weights a parameter has, None if there is none of that name.
        read: (name, index) -> its values there.
        made: `made_in` of the edit before it was cast.
    """
    for name, (index, expected, _) in ends.items():
        size = shape_of(name)
        if size is None:
            raise InputError(f"The edit does not fit this model: it has no weights {name}.")
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= size):
            raise InputError(f"The edit does not fit this model: {name} has {size} weights.")
        differing = read(name, index)
        if differing.dtype != expected.dtype:
            raise InputError(f"The edit is for {name} in {expected.dtype}; this model holds {differing.dtype}.")
        wrong = int((bits(differing.cpu()) != bits(expected)).sum())
        dtype = (made or {}).get(name, expected.dtype)
        if wrong and torch.equal(bits(differing.cpu().to(dtype)), bits(expected.to(dtype))):
            raise InputError(
                f"The edit was made from these weights rounded to {dtype} and does not hold what {wrong} of "
                f"{len(index)} of {name} are, so that it could not be taken out again; make it anew from this model."
            )
        if wrong:
            raise InputError(
                f"{wrong} of {len(index)} weights of {name} are not what the edit expects: it is for another model, "
                "or another edit is in place."
            )


def _write(model: nn.Module, ends: Ends, made: Mapping[str, torch.dtype] | None = None) -> None:
    check_here(model)
    parameters = dict(model.named_parameters())
    check_values(
        ends,
        lambda name: parameters[name].numel() if name in parameters else None,
        lambda name, index: parameters[name].detach().reshape(-1)[index.to(parameters[name].device)],
        made,
    )
    with torch.no_grad():
        for name, (index, _, after) in ends.items():
            put(parameters[name], index, after)


@torch.no_grad()
def put(weight: Tensor, index: Tensor, values: Tensor) -> None:
    """Write values at flat indices of a weight, in place, also where its numbers lie in another order."""
    flat = weight.reshape(-1)  # a copy of one that is kept channels last
    flat[index.to(weight.device)] = values.to(weight.device)
    if flat.data_ptr() != weight.data_ptr():
        weight.copy_(flat.view_as(weight))


def _merged(name: str, first: Change, second: Change) -> Change:
    index = torch.cat([first.index, second.index])
    unique, inverse = index.unique(return_inverse=True)
    both = torch.promote_types(first.old.dtype, second.old.dtype)
    old = torch.cat([first.old.to(both), second.old.to(both)])
    new = torch.cat([first.new.to(both), second.new.to(both)])
    merged = Change(unique, old.new_empty(len(unique)), new.new_empty(len(unique)))
    merged.old[inverse], merged.new[inverse] = old, new
    for ours, given, what in ((merged.old, old, "start from"), (merged.new, new, "want")):
        if not torch.equal(bits(ours[inverse]), bits(given)):
            raise InputError(f"Two edits {what} different values of the same weights of {name}; they do not compose.")
    return merged


def _fault(change: Change) -> str:
    """What keeps a change from being applied and taken back, empty for nothing."""
    index, old, new = change.index, change.old, change.new
    if index.dtype != torch.int64 or index.ndim != 1:
        return f"its places are {index.dtype} {list(index.shape)}, not a row of torch.int64"
    if old.shape != index.shape or new.shape != index.shape:
        return f"{len(index)} places, but {list(old.shape)} old and {list(new.shape)} new values"
    if old.dtype != new.dtype or old.dtype not in FLOATS:
        return f"its values are {old.dtype} and {new.dtype}; accepted: one of {', '.join(str(d) for d in FLOATS)}"
    if len(index) and int(index[0]) < 0:
        return f"it names the place {int(index[0])}"
    steps = index.diff()
    if bool((steps <= 0).any()):
        at = int((steps <= 0).nonzero()[0])
        if int(steps[at]) == 0:
            return f"it names the place {int(index[at])} twice, so that its old value could not be put back"
        return f"its places are not ascending ({int(index[at])}, then {int(index[at + 1])})"
    wrong = int((~(old.isfinite() & new.isfinite())).sum())
    return f"{wrong} of its values are not finite numbers" if wrong else ""


def bits(values: Tensor) -> Tensor:
    """The bit patterns: -0.0 differs from 0.0, and NaN equals itself."""
    return values.contiguous().view(_INTEGERS[values.element_size()])
