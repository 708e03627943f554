"""What of a run is published: its tables and the records that make them a run, checked before anything leaves."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.contents import RECORD as GIVEN
from gazetteer.data.runs.finals import ALL_FINALS
from gazetteer.data.runs.finished import MANIFEST
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.identity import COMMITS, RUN
from gazetteer.data.runs.plans import GROUPS, PLAN, plan_path
from gazetteer.data.runs.relabelled import RECORD as RELABELLED
from gazetteer.data.runs.shards.records import NAME, shard_of_part
from gazetteer.data.storage.files import Files
from gazetteer.data.storage.open import open_files
from gazetteer.data.tables.schemas import FINAL_TABLES, LABELLING_TABLES, PART_TABLES
from gazetteer.jobs.executors.sources import RECORD as REVISIONS
from gazetteer.labeling.vocabulary.synonyms import RECORD as SYNONYMS

MARK = "_meta/_SUCCESS"
"""The file that makes a folder a finished run: published last, so that half a publication is none."""

_OWN = frozenset({
    "_meta/progress.json", "_meta/log.jsonl", "_meta/lock", "_meta/config.json", "_meta/notes.json",
    f"_meta/{GIVEN}", MARK,
})  # fmt: skip
"""What concerns this machine's work on the run alone or is a person's own, and the mark, put behind all else."""

_RECORDS = frozenset({RUN, MANIFEST, RELABELLED, plan_path(GROUPS), f"_meta/{REVISIONS}", f"_meta/{SYNONYMS}"})
"""Records beside plans and commits that an earlier publication may have brought."""


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


def stale(goal: str, present: Collection[str], names: Collection[str]) -> list[str]:
    """What an earlier publication has left at a goal and this one, of `names`, has not; sorted.

    Only files that a publication itself brings are: what people put beside them stays.

    Raises:
        InputError: among those `present` is a table that another command may have written at the goal, and that the
            run has not.
    """
    beside = sorted({f"{name}.parquet" for name in ALL_FINALS.keys() - FINAL_TABLES.keys()} & set(present) - set(names))
    if beside:
        raise InputError(
            f"{goal} holds {beside[0]}, which the run has not: it would lie beside labels that it may not be of; move "
            "it away, or publish elsewhere."
        )
    return sorted(name for name in set(present) - set(names) if _brought(name))


def say_removed(goal: str, names: Collection[str]) -> None:
    """Print what was removed at a goal."""
    for name in names:
        print(f"removed from {goal}: {name}, of an earlier publication", file=sys.stderr)


def _brought(name: str) -> bool:
    """Whether a name, relative to a goal, is one that only a publication gives."""
    folder, _, base = name.rpartition("/")
    if folder in LABELLING_TABLES:
        return shard_of_part(base) is not None
    if folder == COMMITS:
        return re.fullmatch(rf"{NAME}\.json", base) is not None
    if folder == "_meta":
        return name in _RECORDS or PLAN.fullmatch(base) is not None
    return not folder and base in {f"{table}.parquet" for table in FINAL_TABLES}
