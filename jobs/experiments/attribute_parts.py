"""Parts of an evaluation that several calls measured, put together in one ``evaluation.json``, or kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gazetteer.attribution.edits.method_names import AMPLIFY, ERASE
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.files.regular import read_regular
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.storage.lock import alone

FILE = "evaluation.json"
_BY_METHOD = ("erase", "erase_styles", "erase_areas", "erase_together", "amplify", "amplify_styles", "attacks",
              "overlap", "distribution")  # fmt: skip
_DOSED = ("erase", "erase_styles", "erase_areas", "amplify", "amplify_styles")
_TOGETHER = {
    "faithfulness_rows": ("faithfulness", "faithfulness_spearman"),
    "faithfulness_heldout_rows": ("faithfulness_heldout",),
}
"""Rows of single concepts, and what is a mean of them."""
_ORDER = {method: place for place, method in enumerate(dict.fromkeys((*ERASE, *AMPLIFY, "blocking")))}


@dataclass(frozen=True)
class Joined:
    """What a call measured beside what lay there.

    Attributes:
        result: for ``evaluation.json``.
        kept: the parts in it that are, in whole or for some methods, those of earlier calls.
        apart: why nothing earlier could be taken in; empty where it was, or where nothing lay there.
    """

    result: dict[str, Any]
    kept: tuple[str, ...] = ()
    apart: str = ""


def earlier(out: str | Path) -> dict[str, Any] | None:
    """What earlier calls wrote as ``OUT/evaluation.json``, None where there is none; InputError for a damaged file."""
    path = Path(out) / FILE
    if not path.exists():
        return None
    try:
        content = json_object(read_regular(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, the cache keeps what was measured.") from error
    if not _sound(content):
        raise InputError(f"{path} is not what this command writes; remove it or take another folder.")
    return content


def _sound(content: Mapping[str, Any]) -> bool:
    """Whether the parts of an evaluation have the shape by which they are joined."""
    try:
        for name in (*_BY_METHOD, "everywhere", *_TOGETHER):
            if content.get(name):
                _concepts(name, content[name])
            if name in _BY_METHOD:
                _methods(name, content.get(name, {}), content.get(name, {}))
    except (AttributeError, KeyError, TypeError):
        return False
    return True


def joined(before: Mapping[str, Any] | None, result: Mapping[str, Any]) -> Joined:
    """A call's result with what earlier calls measured of other parts and methods.

    Only results of the same settings, and in every part of the same concepts, are put together: a mean over some
    concepts beside one over others would be read as if they could be compared.
    """
    if before is None:
        return Joined(dict(result))
    if before.get("settings") != result["settings"]:
        return Joined(dict(result), apart="it is of other settings or of an older version")
    both = [name for name in (*_BY_METHOD, "everywhere", *_TOGETHER) if before.get(name) and result.get(name)]
    for name in both:
        theirs, ours = _concepts(name, before[name]), _concepts(name, result[name])
        if theirs != ours:
            return Joined(dict(result), apart=f"its {name} is of {_said(theirs)}, this one of {_said(ours)}")
    content, kept = {**before, **result}, list[str]()
    for name in (*_BY_METHOD, "everywhere", *_TOGETHER):
        was, now = before.get(name), result.get(name)
        if not was:
            continue
        if not now:
            content |= {key: before[key] for key in (name, *_TOGETHER.get(name, ())) if key in before}
        elif name in _BY_METHOD:
            content[name] = _methods(name, was, now)
        if not now or (name in _BY_METHOD and _more(name, was, now)):
            kept.append(name)
    return Joined(content, tuple(kept))


def joining(out: str | Path) -> AbstractContextManager[None]:
    """Keep other calls on the same folder out of a block that reads, joins and writes its ``evaluation.json``."""
    return alone(Path(out) / ".evaluation.lock")


def put_apart(out: str | Path) -> Path:
    """Move ``OUT/evaluation.json``, its page and its plots to the next free of ``OUT/evaluation-1``, ``-2``, …"""
    folder, number = Path(out), 1
    while (place := folder / f"evaluation-{number}").exists():
        number += 1
    with write_errors(str(place)):
        place.mkdir()
        for file in (*folder.glob("*.svg"), folder / "evaluation.md", folder / FILE):
            if file.exists():
                file.rename(place / file.name)
    return place


def _methods(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """By method what was and what is now, which goes first; of attacks by method and attack."""
    both = {**was, **now}
    if name in _DOSED:  # at the same dose: the reference is measured in every call, in some with fewer controls
        for method in set(was) & set(now):
            if "fraction" in was[method] and was[method]["fraction"] == now[method].get("fraction"):
                minus = {**was[method].get("minus", {}), **now[method].get("minus", {})}
                both[method] = {**was[method], **now[method], **({"minus": minus} if minus else {})}
    if name == "attacks":
        both = {method: {**was.get(method, {}), **now.get(method, {})} for method in both}
    return dict(sorted(both.items(), key=lambda item: _ORDER.get(item[0], -1)))


def _more(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether some of what was is not measured now."""
    if name == "attacks":
        return any(set(attacks) - set(now.get(method, {})) for method, attacks in was.items())
    return bool(set(was) - set(now))


def _concepts(name: str, part: Any) -> set[str]:
    """The concepts that a part of an evaluation is of."""
    if name in _TOGETHER:
        return {row["concept"] for row in part}
    if name == "everywhere":
        return set(part["step"])
    if name == "attacks":
        return {c for attacks in part.values() for outcome in attacks.values() for c in outcome.get("by_concept", ())}
    return {c for figures in part.values() for c in figures.get("concepts", figures)}


def _said(concepts: set[str]) -> str:
    return ", ".join(sorted(concepts)) or "no concept"
