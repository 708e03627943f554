"""Plain values of edits, as frozen classes hold them: numbers as floats, words that are among the accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gazetteer.data.core.errors import InputError


def make_floats(instance: Any, *names: str) -> None:
    """Make the numbers of a frozen value floats, so that equal ones are written alike: 2 as 2.0, -0.0 as 0.0."""
    for name in names:
        value = getattr(instance, name)
        if value is not None:
            try:
                plain = tuple(float(v + 0.0) for v in value) if isinstance(value, tuple | list) else float(value + 0.0)
            except OverflowError as error:
                raise InputError(f"{name} is a number that is too large to count with.") from error
            object.__setattr__(instance, name, plain)


def check_choice(name: str, value: str, accepted: Sequence[str]) -> None:
    """InputError unless the value of an edit's key is one of the accepted."""
    if value not in accepted:
        raise InputError(f"An edit's {name} is {value!r}; accepted: {', '.join(accepted)}.")
