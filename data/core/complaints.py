"""What is wrong with a setting, as one sentence in this project's words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

UNKNOWN_KEY = "unexpected_keyword_argument"
_LIMITS = {
    "greater_than_equal": "at least", "greater_than": "above", "less_than_equal": "at most", "less_than": "below",
}  # fmt: skip
_KINDS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number", "string_type": "text",
    "bool_type": "true or false", "tuple_type": "a list", "dict_type": "a mapping of names",
    "dataclass_type": "a mapping of keys", "dataclass_exact_type": "a mapping of keys",
}  # fmt: skip


def complaint(first: Any, key: str, here: Sequence[str], elsewhere: Sequence[str]) -> str:
    """What pydantic found, as a sentence.

    Args:
        first: one entry of a `pydantic.ValidationError`.
        key: its place, dotted.
        here: where it is unknown, the keys that are accepted there.
        elsewhere: then, all keys, dotted, for one that stands in the wrong place.
    """
    value, context = first.get("input"), first.get("ctx", {})
    if first["type"] == UNKNOWN_KEY:
        return f"Unknown configuration key {key}; {suggestion(str(first['loc'][-1]), here, key, elsewhere)}"
    if first["type"] == "missing":
        return f"The configuration key {key} is missing."
    if first["type"] == "one_of":
        return f"{key} is {value!r}; accepted: {context['accepted']}."
    if first["type"] == "finite_number":
        return f"{key} must be a finite number, not {value}."
    if first["type"] == "too_short":
        return f"{key} must not be empty."
    if first["type"] in _LIMITS:
        return f"{key} must be {_LIMITS[first['type']]} {said_number(next(iter(context.values())))}, not {value!r}."
    if first["type"] == "string_type" and value is None:
        return f'{key} must be text, not null; an empty text is "".'
    if first["type"] in _KINDS:
        return f"{key} must be {_KINDS[first['type']]}, not {value!r}."
    return f"{key or 'The configuration'} cannot be {value!r}: {first['msg']}."


def said_number(limit: int | float) -> str:
    """A limit, a whole one with all of its digits."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def suggestion(wrong: str, here: Sequence[str], key: str = "", elsewhere: Sequence[str] = ()) -> str:
    """What was meant, if something is close, and what is accepted; of dotted keys, also where a key belongs."""
    close = difflib.get_close_matches(wrong, here, 1, 0.6)
    if not close:
        close = [name for name in elsewhere if name.split(".")[-1] == wrong][:1]
        close = close or difflib.get_close_matches(key, elsewhere, 1, 0.85)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}accepted: {', '.join(here)}."


def dotted(loc: Iterable[str | int]) -> str:
    """A place in nested settings as a person writes it: ``pools[0].workers``."""
    said = ""
    for part in loc:
        said += f"[{part}]" if isinstance(part, int) else f".{part}" if said else part
    return said
