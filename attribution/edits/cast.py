"""An edit in the type of the weights it is for: old values exactly, new ones rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gazetteer.attribution.edits.delta import Change, Delta, bits
from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
class Rounding:
    """What became of an edit's new values.

    Attributes:
        cast: values that were written in another type.
        rounded: of these, the values that changed by it.
        lost: of these, the values that came out as the old ones: the edit does nothing there.
        dtypes: the types written, by name.
    """

    cast: int = 0
    rounded: int = 0
    lost: int = 0
    dtypes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.cast:
            return "written as the edit has them"
        kinds = ", ".join(self.dtypes)
        said = f"{self.rounded} of {self.cast} new values rounded to {kinds}"
        return f"{said}, {self.lost} of them back to the old value" if self.lost else said


def fitted(delta: Delta, dtype_of: Callable[[str], torch.dtype | None]) -> tuple[Delta, Rounding]:
    """The edit in the types that a model's weights are stored in.

    Weights that were loaded from float16 into float32 and edited there have old values that float16 holds exactly:
    these are cast without loss, so that the stored weights can be compared and put back bit for bit; new values are
    rounded.

    Args:
        dtype_of: parameter name -> its stored type, None where there is no such parameter (left for `apply` to refuse).

    Raises:
        InputError: an old value that the stored type does not hold (the edit was made from other weights), or a new
            one that it cannot reach.
    """
    changes: dict[str, Change] = {}
    cast = rounded = lost = 0
    kinds: dict[str, None] = {}
    for name, change in delta.changes.items():
        dtype = dtype_of(name)
        if dtype is None or dtype == change.old.dtype:
            changes[name] = change
            continue
        old, new = change.old.to(dtype), change.new.to(dtype)
        back = bits(old.to(change.old.dtype)) != bits(change.old)
        if bool(back.any()):
            raise InputError(
                f"The edit is for {name} in {change.old.dtype}; this model holds {dtype}, which cannot hold "
                f"{int(back.sum())} of its {len(back)} old values: it was made from other weights."
            )
        if not bool(new.isfinite().all()):
            raise InputError(f"The edit's new values of {name} are beyond what {dtype} holds, in which this model is.")
        changes[name] = Change(change.index, old, new)
        differs = bits(new.to(change.new.dtype)) != bits(change.new)
        cast += len(new)
        rounded += int(differs.sum())
        lost += int(((bits(new) == bits(old)) & (bits(change.new) != bits(change.old))).sum())
        kinds[str(dtype).removeprefix("torch.")] = None
    return Delta(changes, delta.provenance), Rounding(cast, rounded, lost, tuple(kinds))
