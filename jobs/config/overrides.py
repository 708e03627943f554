"""``--set KEY=VALUE``: one key of a configuration changed before it is read."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.plain_yaml import read_yaml
from gazetteer.data.core.settings import walk


def apply_override(raw: dict[str, Any], override: str, settings: type) -> None:
    """Set what ``key=value`` says in a configuration as it is read; InputError for what is no such text.

    The value is YAML. One that is left empty is an empty text where `settings`, the configuration's class, takes text
    at that key and no null.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set takes key=value, not {override!r}.")
    *parents, last = key.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise InputError(f"--set {key}: {parent} is not a group of keys.")
    raw[last] = read_yaml(text, f"--set {key}: {text!r}") if text.strip() or not _takes_text(settings, key) else ""


def _takes_text(settings: type, key: str) -> bool:
    hint = next((known.hint for known in walk(settings) if known.key == key), None)
    kinds = _kinds(hint)
    return str in kinds and type(None) not in kinds


def _kinds(hint: Any) -> set[Any]:
    """The types that a hint takes, its constraints left out."""
    if typing.get_origin(hint) is Annotated:
        return _kinds(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return set().union(*map(_kinds, typing.get_args(hint)))
    return {hint}
