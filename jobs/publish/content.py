"""What of a run is published: its tables and the records that make them a run, checked before anything leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.finals import ALL_FINALS
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.files import Files
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.schemas import PART_TABLES

MARK = "_meta/_SUCCESS"
"""The file that makes a folder a finished run: published last, so that half a publication is none."""

_OWN = frozenset({"_meta/progress.json", "_meta/log.jsonl", "_meta/lock", "_meta/config.json", MARK})
"""What concerns this machine's work on the run alone, and the mark, which is put behind everything else."""


@dataclass(frozen=True)
class Content:
    """The files of a finished run that are published, unchanged.

    Attributes:
        run: where the run lies.
        files: to read them with.
        names: relative to the run, sorted, the mark of completeness last.
        manifest: what the run finished with.
        left_out: files beside the tables that are none of the run's.
    """

    run: str
    files: Files
    names: tuple[str, ...]
    manifest: dict[str, Any]
    left_out: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """The bytes of one of the files."""
        return self.files.read(name)


def content_of(run: str | os.PathLike[str]) -> Content:
    """The publishable files of a run, every byte compared with its record.

    Raises:
        InputError: not a finished run, or one that is not as recorded (`gazetteer verify` says all that is wrong).
    """
    store = RunFolder(run)
    findings = store.check()
    if findings.problems:
        first = findings.problems[0]
        raise InputError(f"{run} is not published: {first.where} {first.what}; gazetteer verify {run} says more.")
    manifest, files = store.require_finished(), open_files(run)
    aside = set(findings.orphans) | set(findings.strays)
    names = sorted(name for name in _names(files) if name not in aside)
    for name in names:
        if name.startswith("_meta/") and name.count("/") == 1:
            store.read_json(name.removeprefix("_meta/"))  # no half of a file is passed on
    return Content(os.fspath(run), files, (*names, MARK), manifest, tuple(sorted(aside)))


def _names(files: Files) -> Iterator[str]:
    for name in files.names(""):
        if name.removesuffix(".parquet") in ALL_FINALS and name.endswith(".parquet"):
            yield name
    for table in PART_TABLES:
        yield from (f"{table}/{name}" for name in files.names(table) if name.endswith(".parquet"))
    for name in files.names("_meta"):
        if f"_meta/{name}" not in _OWN and name.endswith(".json"):
            yield f"_meta/{name}"
    yield from (f"_meta/commits/{name}" for name in files.names("_meta/commits") if name.endswith(".json"))
