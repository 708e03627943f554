"""JSON as it is meant: what one reader would drop is refused, and so is what is no object where one belongs."""

from __future__ import annotations

import json
from typing import Any


def json_object(content: str | bytes) -> dict[str, Any]:
    """The object of a JSON text; ValueError, which says why, where it holds another value or is nested too deep."""
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different; ValueError for a repeated one, of which readers would drop one.

    The ``object_pairs_hook`` of `json.loads`.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return content
