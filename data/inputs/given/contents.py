"""What lies in the files of given pictures: digested once, when a run starts, and compared where they are read.

A run keeps it in ``_meta/given.json``, a picture's digest with the sizes and times of its files by its id. A process
that goes on with the run digests again only files whose size or time is another; a worker digests what it has read. So
no run mixes two versions of a picture, whatever was said of its time, and a picture that failed may be mended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gazetteer.data.core.digests import digest_file, digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompts import Item
from gazetteer.data.runs.folder import RunFolder

RECORD = "given.json"
_READERS = 8
"""Files that are read side by side: on storage of a network it is waiting that takes the time."""


def content_of(files: Iterable[Path]) -> str:
    """The digest of a picture's files in their order, in hex; empty where there are none, or one cannot be read."""
    try:
        digests = [digest_file(file) for file in files]
    except InputError:  # which is said when the picture is read, and costs that one alone
        return ""
    return digest_json(digests) if digests else ""


def require_content(files: Sequence[Path], content: str) -> None:
    """InputError where a picture's files are not those of `content`; an empty one, or a missing file, says nothing."""
    now = content_of(files) if content else ""
    if now and now != content:
        raise InputError(_changed(files))


def recorded(store: RunFolder) -> dict[str, str]:
    """The contents of a run's given pictures by image id; of runs that keep none, and of generated ones, nothing."""
    return {image_id: content for image_id, (content, _) in _kept(store).items()}


def _kept(store: RunFolder) -> dict[str, list[Any]]:
    kept = store.read_json(RECORD) or {}
    if not all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in kept.values()):
        raise InputError(
            f"{store.path}/_meta/{RECORD} does not say what lay in the given pictures; bring it back from a copy, or "
            "start a new run in another folder."
        )
    return dict(kept)


def keep_contents(
    store: RunFolder, items: Sequence[Item], files_of: Callable[[Item], Sequence[Path]], failing: Collection[str]
) -> None:
    """Hold given pictures to what the run was started with, and write down what that is.

    Until the first shard pictures may change; afterwards those alone that failed, to be tried again.

    Args:
        items: all that the run may take.
        failing: image ids of which the run has no picture because they failed.

    Raises:
        InputError: another picture, or a mask of it, lies there now.
    """
    kept = _kept(store) if store.shard_ids() else {}

    def present(item: Item) -> list[Any]:
        files = files_of(item)
        content, before = kept.get(item.image_id, ["", None])
        stamp = _stamp(files)
        if not stamp or (content and stamp == before):
            return [content, before]
        now = content_of(files)
        if content and now and now != content and item.image_id not in failing:
            raise InputError(_changed(files))
        return [now, stamp]

    with ThreadPoolExecutor(_READERS) as readers:
        present_ones = dict(zip((item.image_id for item in items), readers.map(present, items), strict=True))
    if present_ones != kept:
        store.write_json(RECORD, present_ones)


def _stamp(files: Iterable[Path]) -> list[list[int]]:
    """Size and time of every file; nothing where one is missing."""
    try:
        seen = [os.stat(file) for file in files]
    except OSError:
        return []
    return [[status.st_size, status.st_mtime_ns] for status in seen]


def _changed(files: Sequence[Path]) -> str:
    masks = f" (or a mask of it, such as {files[1]})" if len(files) > 1 else ""
    return (
        f"The picture {files[0]}{masks} is not what this run was started with: it was changed meanwhile, or this node "
        "has another copy. Put it back and run the same command again: it resumes; other pictures are another run. One "
        "that failed may be mended, for --retry-failed."
    )
