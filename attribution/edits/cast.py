"""An edit in the type of the weights it is for, and what that does to its new values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gazetteer.attribution.edits.delta import Delta, bits, in_types


@dataclass(frozen=True)
class Rounding:
    """What became of an edit's new values.

    Attributes:
        cast: values that were written in another type.
        rounded: of these, the values that changed by it.
        lost: of these, the values that came out as the old ones: the edit does nothing there.
        dtypes: the types written, by name.
        old_rounded: of the old values, those that the type does not hold: a model that holds them rounded is another
            copy than the one that the edit was made from, and gets its own back.
    """

    cast: int = 0
    rounded: int = 0
    lost: int = 0
    dtypes: tuple[str, ...] = ()
    old_rounded: int = 0

    def __str__(self) -> str:
        if not self.cast:
            return "written as the edit has them"
        kinds = ", ".join(self.dtypes)
        said = f"{self.rounded} of {self.cast} new values rounded to {kinds}"
        said += f", {self.lost} of them back to the old value" if self.lost else ""
        if self.old_rounded:
            said += f"; {self.old_rounded} old values too, for the model holds those of the edit rounded"
        return said


def fitted(delta: Delta, dtype_of: Callable[[str], torch.dtype | None]) -> tuple[Delta, Rounding]:
    """The edit in the types that a model's weights are stored in (`in_types`).

    Weights that were loaded from float16 into float32 and edited there have old values that float16 holds exactly:
    these are cast without loss, so that the stored weights can be compared and put back bit for bit; new values are
    rounded. Old values that the type does not hold are rounded too, and counted.

    Args:
        dtype_of: parameter name -> its stored type, None where there is no such parameter (left for `apply` to refuse).

    Raises:
        InputError: a value that the stored type cannot reach.
    """
    cast = rounded = lost = old_rounded = 0
    kinds: dict[str, None] = {}
    stored = in_types(delta, dtype_of)
    for name, change in delta.changes.items():
        old, new = stored.changes[name].old, stored.changes[name].new
        if new.dtype == change.new.dtype:
            continue
        differs = bits(new.to(change.new.dtype)) != bits(change.new)
        cast += len(new)
        rounded += int(differs.sum())
        old_rounded += int((bits(old.to(change.old.dtype)) != bits(change.old)).sum())
        lost += int(((bits(new) == bits(old)) & (bits(change.new) != bits(change.old))).sum())
        kinds[str(new.dtype).removeprefix("torch.")] = None
    return stored, Rounding(cast, rounded, lost, tuple(kinds), old_rounded)
