"""Publish into a folder: the run as others will find it, resumed where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.storage.files import Files
from gazetteer.data.storage.open import open_files
from gazetteer.jobs.publish.bundle import Bundle
from gazetteer.jobs.publish.content import MARK, say_removed, stale
from gazetteer.jobs.publish.hub import Publication


def publish_to_folder(bundle: Bundle, out: str | Path) -> dict[str, Any]:
    """Write the publication to a folder or URL; what is there already in the same bytes is left alone.

    Files of an earlier publication that this one has not are removed, and said; what else lies there stays.

    Returns:
        ``files`` that the publication has, ``written`` and ``bytes`` of those that were written now, ``removed``.

    Raises:
        InputError: the folder holds something else than an earlier publication of this run, or a table about labels
            that the run has not.
    """
    target = open_files(out)
    _require_ours(bundle, target)
    old = stale(target.root, _there(target), bundle.names)
    for name in old:
        target.remove(MARK)  # half a publication is none
        target.remove(name)
    say_removed(target.root, old)
    return _written(bundle, target) | {"removed": len(old)}


def publish_files(publication: Publication, out: str | Path) -> dict[str, Any]:
    """Write files to a folder that may hold some of them already; returns as `publish_to_folder`.

    Raises:
        InputError: the folder holds other files.
    """
    target = open_files(out)
    other = sorted(set(target.names("")) - set(publication.names))
    if other:
        raise InputError(f"{target.root} holds something else ({other[0]}); give another folder.")
    return _written(publication, target) | {"removed": 0}


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


def _require_ours(bundle: Bundle, target: Files) -> None:
    if not target.names("") and not target.folders(""):
        return
    try:
        if target.read("_meta/run.json") == bundle.read("_meta/run.json"):
            return
    except FileNotFoundError:
        names = set(bundle.names)
        if _there(target) <= names and set(target.names("")) <= names:  # stopped before the records came
            return
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
