"""The keys of a configuration for people: the page of all of them, and one configuration with what each key means."""

from __future__ import annotations

import dataclasses
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen

from gazetteer.data.core.complaints import said_number
from gazetteer.data.core.plain_yaml import read_yaml
from gazetteer.data.core.settings import Effect, OneOf, Setting, TextOrNames, fields, group_of
from gazetteer.jobs.config.schema import RunConfig

EFFECTS = {
    Effect.SELECTION: "which pictures",
    Effect.PICTURES: "pictures",
    Effect.CODES: "codes",
    Effect.SEGMENTS: "segments",
    Effect.LABELS: "labels",
    Effect.TRAINING: "autoencoders",
    Effect.MEASUREMENTS: "measurements",
    Effect.NOTHING: "nothing",
}
"""What the page calls the effects, in its order."""

_INTRODUCTION = """\
A configuration is a YAML file; `--set key=value` overrides single keys, `gazetteer config` prints the one that counts.
A key of text that is set to nothing (`--set segmenter.path=`) is empty; in a file, empty text is `""`.
Unknown keys, and values of another type, are refused. **Changes** says what a key changes first, and with it all that
is made from that:

| changes | what | what else follows |
|---|---|---|
| which pictures | the prompts and seeds that are painted, and the shards they are cut into | the tables |
| pictures | the picture of a prompt and a seed | everything below |
| codes | where the model is listened to and what encodes it | evidence, labels |
| segments | what is found in a picture, and where | evidence, labels |
| labels | what becomes of codes and segments | |
| autoencoders | what `gazetteer sae train` makes; no table of a run | |
| measurements | what `steer`, `causal` and `attribute` measure; no table that `label` writes | |
| nothing | only speed, place, or when something is given up | |

A run can be resumed with other values of the last three kinds only. *Last bits* marks keys by which results differ as
rounding differs; a picture keeps its name under them."""

_HEAD = "| key | type | default | changes | meaning |\n|---|---|---|---|---|"


def reference() -> str:
    """The page of all keys as Markdown: type, default, what it changes, meaning; a section each group."""
    sections = [f"# Configuration\n\n{_INTRODUCTION}", *_sections(RunConfig, "", None)]
    return "\n\n".join(sections) + "\n"


def _sections(cls: type, prefix: str, effect: Effect | None) -> Iterator[str]:
    title = f"`{prefix.rstrip('.')}`" if prefix else "Top level"
    about = " ".join((cls.__doc__ or "").partition("\n\n")[0].split())
    rows, below = [], []
    for setting in fields(cls):
        inner = group_of(setting.hint) or _listed(setting.hint)
        if inner is None:
            rows.append(_row(setting, f"{prefix}{setting.name}", _effect(setting, effect)))
        else:
            place = f"{prefix}{setting.name}{'[]' if _listed(setting.hint) else ''}."
            below.append((inner, place, setting.about.effect or effect))
    yield "\n".join([f"## {title}\n\n{about}\n\n{_HEAD}", *rows])
    for group in below:
        yield from _sections(*group)


def _effect(setting: Setting, effect: Effect | None) -> Effect:
    counted = setting.about.effect if effect is None or setting.about.effect is Effect.NOTHING else effect
    assert counted is not None, f"{setting.key} does not say what it changes"
    return counted


def _row(setting: Setting, key: str, effect: Effect) -> str:
    default = "required" if setting.default is dataclasses.MISSING else f"`{flow(_plain(setting.default))}`"
    changes = EFFECTS[effect] + (" (last bits)" if setting.about.last_bits and effect is not Effect.NOTHING else "")
    cells = (f"`{key}`", said_type(setting.hint), default, changes, setting.about.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("``", "`") for cell in cells) + " |"


def said_type(hint: Any) -> str:
    """A type in words, e.g. ``whole number, at least 1``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, OneOf):
                return f"one of {mark.said}"
            if isinstance(mark, TextOrNames):
                return mark.said
        return ", ".join([said_type(args[0]), *filter(None, map(_limit, hint.__metadata__))])
    if origin in (types.UnionType, typing.Union):
        return f"{said_type(next(argument for argument in args if argument is not type(None)))}, or null"
    if origin is tuple:
        return f"list of: {said_type(args[0])}"
    if origin is dict:
        return f"names with: {said_type(args[1])}"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}[hint]


def _limit(constraint: Any) -> str:
    words = {Ge: ("at least", "ge"), Gt: ("above", "gt"), Le: ("at most", "le"), Lt: ("below", "lt")}
    if isinstance(constraint, MinLen):
        return "not empty"
    word = words.get(type(constraint))
    return f"{word[0]} {said_number(getattr(constraint, word[1]))}" if word else ""


def as_yaml(config: RunConfig) -> str:
    """A configuration as YAML with every key, and as comments its default and what it means; loads as the same one."""
    return "\n".join(_lines(config, "")) + "\n"


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain values, by group and key."""
    return {setting.name: _plain(getattr(config, setting.name)) for setting in fields(type(config))}


def _lines(config: Any, indent: str) -> Iterator[str]:
    ordered = sorted(fields(type(config)), key=lambda setting: dataclasses.is_dataclass(getattr(config, setting.name)))
    for setting in ordered:
        value = getattr(config, setting.name)
        if dataclasses.is_dataclass(value):
            about = " ".join((type(value).__doc__ or "").partition("\n\n")[0].split())
            yield from ("", f"{indent}# {about}", f"{indent}{setting.name}:", *_lines(value, f"{indent}  "))
            continue
        default = "required" if setting.default is dataclasses.MISSING else f"default: {flow(_plain(setting.default))}"
        changes = f"; changes {EFFECTS[setting.about.effect]}" if setting.about.effect else ""
        yield from _wrapped(f"{setting.about.meaning} ({default}{changes})".strip(), indent)
        yield f"{indent}{setting.name}: {flow(_plain(value))}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text.replace("``", "`"), 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def flow(value: Any) -> str:
    """A value as YAML within a line, which `read_yaml` takes for the same."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    text = text.removesuffix("\n...\n").strip()
    return text if read_yaml(text, "") == value else json.dumps(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _listed(hint: Any) -> type | None:
    """The class of settings that a list holds, or None."""
    args = typing.get_args(hint)
    return group_of(args[0]) if typing.get_origin(hint) is tuple and args else None
