"""Publish into a folder: the run as others will find it, resumed where it stopped."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.storage.files import Files
from gazetteer.data.storage.open import open_files
from gazetteer.jobs.label import card as cards
from gazetteer.jobs.publish.bundle import Bundle
from gazetteer.jobs.publish.content import MARK, say_removed, stale
from gazetteer.jobs.publish.publication import Publication, require_no_persons


def publish_to_folder(bundle: Bundle, out: str | Path, saes: Publication | None = None) -> dict[str, Any]:
    """Write the publication to a folder or URL; what is there already in the same bytes is left alone.

    Files of an earlier publication that this one has not are removed, and said; what else lies there stays.

    Args:
        saes: the autoencoders, for ``OUT/saes``.

    Returns:
        ``files`` that the publication has, ``written`` and ``bytes`` of those that were written now, ``removed``; the
        same of the autoencoders under ``saes``.

    Raises:
        InputError: the folder holds something else than an earlier publication of this run, a card or a description
            that a person wrote, or a table about labels that the run has not; nothing was written.
    """
    target, inner = open_files(out), open_files(f"{os.fspath(out).rstrip('/')}/saes")
    earlier = _require_ours(bundle, target)
    require_no_persons(bundle, target.root, partial(_bytes, target))
    if saes is not None:
        _require_room(saes, inner, earlier)
    old = stale(target.root, _there(target), bundle.names)
    for name in old:
        target.remove(MARK)  # half a publication is none
        target.remove(name)
    say_removed(target.root, old)
    report = _written(bundle, target) | {"removed": len(old)}
    return report if saes is None else report | {"saes": _written(saes, inner) | {"removed": 0}}


def _bytes(target: Files, name: str) -> bytes | None:
    try:
        return target.read(name)
    except FileNotFoundError:
        return None


def _require_room(saes: Publication, target: Files, earlier: bool) -> None:
    """InputError unless the folder of autoencoders is new, empty, or holds these ones.

    earlier: it is part of an earlier publication of the run, whose autoencoders are these: what differs is damaged.
    """
    other = sorted(set(target.names("")) - set(saes.names))
    if not earlier:
        other += [name for name in saes.names if name != cards.NAME and _differs(target, name, saes.read(name))]
    if other:
        raise InputError(f"{target.root} holds something else ({other[0]}); give another folder.")
    require_no_persons(saes, target.root, partial(_bytes, target))


def _written(publication: Publication, target: Files) -> dict[str, Any]:
    names, written, size = publication.names, 0, 0
    for name in names:
        content = publication.read(name)
        if _same(target, name, content):
            continue
        if name != MARK:
            target.remove(MARK)
        target.replace(name, content)
        written, size = written + 1, size + len(content)
    return {"files": len(names), "written": written, "bytes": size}


def _require_ours(bundle: Bundle, target: Files) -> bool:
    """Whether the folder holds an earlier publication with its records; InputError where it holds something else."""
    if not target.names("") and not target.folders(""):
        return False
    try:
        if target.read("_meta/run.json") == bundle.read("_meta/run.json"):
            return True
    except FileNotFoundError:
        names, present = set(bundle.names), _there(target) | set(target.names(""))
        tables = present - bundle.own.keys()
        if present <= names and not any(_differs(target, name, bundle.read(name)) for name in tables):
            return False  # stopped before the records came
    raise InputError(
        f"{target.root} is neither empty nor an earlier publication of {bundle.content.run}; give another folder."
    )


def _there(target: Files) -> set[str]:
    """What lies in the folders that a publication fills."""
    published = {name for name in target.names("") if name.endswith(".parquet")}
    for folder in [*target.folders(""), "_meta/commits"]:
        if folder != "saes":
            published |= {f"{folder}/{name}" for name in target.names(folder)}
    return published


def _same(target: Files, name: str, content: bytes) -> bool:
    try:
        return target.size(name) == len(content) and target.read(name) == content
    except FileNotFoundError:
        return False


def _differs(target: Files, name: str, content: bytes) -> bool:
    """Whether other bytes lie under a name."""
    return target.size(name) is not None and not _same(target, name, content)
