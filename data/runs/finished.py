"""That a run is finished, and whether what it finished with is still as it was left: asked before tables are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.finals import parse_manifest
from gazetteer.data.runs.identity import RUN, Identity, differences
from gazetteer.data.runs.plans import PLAN, Plans
from gazetteer.data.runs.publish import json_bytes
from gazetteer.data.runs.relabelled import label_settings
from gazetteer.data.runs.shards.commits import Commits
from gazetteer.data.runs.shards.records import part_name, record_name
from gazetteer.data.storage.files import Files

MANIFEST, SUCCESS = "_meta/manifest.json", "_meta/_SUCCESS"


class Mark:
    """The mark of the run whose files are given: ``_SUCCESS`` holds the digest of the manifest it finished with."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def put(self, manifest: dict[str, Any]) -> None:
        """Write ``manifest.json``, then the mark."""
        content = json_bytes(manifest)
        self._files.replace(MANIFEST, content)
        self._files.replace(SUCCESS, digest_bytes(content).encode() + b"\n")

    def is_there(self) -> bool:
        """Whether the run finished and the manifest is the one it finished with."""
        try:
            mark = self._files.read(SUCCESS).decode("ascii", "replace").strip()
            return mark == digest_bytes(self._files.read(MANIFEST))
        except FileNotFoundError:
            return False

    def manifest(self) -> dict[str, Any] | None:
        """What the run finished with (``shards`` and ``tables`` are always there), or None while it has not."""
        return parse_manifest(self._files.read(MANIFEST)) if self.is_there() else None

    def remove(self) -> None:
        """Say that the run is under way again."""
        self._files.remove(SUCCESS)


def require_whole(files: Files, identity: Identity, plans: Plans, commits: Commits) -> dict[str, Any]:
    """The manifest of a finished run of which nothing that is seen at once was edited, cut short or taken away.

    Records, plans and sizes are looked at and no table is read: parts are compared with their records where they are
    read, and every byte by `gazetteer verify`.

    Raises:
        InputError: the run is not finished (and what finishes it), or not as it was left (what is not, and what to do).
    """
    root = files.root
    begun, manifest = identity.fingerprint(), Mark(files).manifest()
    if begun is None and "://" not in root and not os.path.exists(root):
        raise InputError(f"{root} is not a finished run: there is no such folder.")
    if begun is None or manifest is None:
        raise InputError(f"{root} is not a finished run; {how_to_finish(files, identity, commits)}.")
    made, now = manifest.get("fingerprint"), identity.of_tables() or {}
    if isinstance(made, dict) and made != now:
        raise InputError(f"{root}/{RUN} {settings_edited(made, now)}.")
    for name in sorted([*files.names("_meta"), *files.folders("_meta")]):
        if PLAN.fullmatch(name):
            plans.read(name.removesuffix(".json"))
    for name, said in _not_as_left(files, commits, manifest):
        raise InputError(f"{root} is not as it was finished: {name} {said}; gazetteer verify {root} says what to do.")
    return manifest


def how_to_finish(files: Files, identity: Identity, commits: Commits) -> str:
    """What finishes a run that is none yet, or any more."""
    try:
        manifest = parse_manifest(files.read(MANIFEST))
    except FileNotFoundError:
        manifest = None
    if manifest is None or identity.fingerprint() is None:
        return "run gazetteer label on it"
    again = "give the same call again, and it goes on"
    made, shards, ids = manifest.get("fingerprint"), set(manifest["shards"]), set(commits.ids())
    if shards == ids and label_settings(files) is not None and made != identity.of_tables():
        return f"gazetteer relabel of it was cut off: {again}"
    if shards != ids and same_shards(shards, ids, commits.groups.grouped()):
        return f"gazetteer compact of it was cut off: {again}"
    if shards == ids and not list(_not_as_left(files, commits, manifest)):
        return (
            "only its mark is missing: run gazetteer label on it, or give again the gazetteer relabel that was cut off"
        )
    return "run gazetteer label on it"


def same_shards(these: Iterable[str], those: Iterable[str], groups: Mapping[str, Sequence[str]]) -> bool:
    """Whether two lists of shards name the same ones, where a group stands for the shards in it."""
    first, second = ({shard for name in names for shard in groups.get(name, (name,))} for names in (these, those))
    return first == second


def settings_edited(made: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """That ``run.json`` is not what shards or tables were made with, how it differs, and what to do."""
    return (
        f"states other settings than the run was made with ({differences(made, now)}): it was edited; put it back, and "
        "nothing has to be computed again"
    )


def _not_as_left(files: Files, commits: Commits, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Records and tables that are not those of the manifest, and how, by names and sizes alone."""
    recorded, ids = set(manifest["shards"]), set(commits.ids())
    for shard in sorted(recorded ^ ids):
        known = "is missing" if shard in recorded else "is a shard that the finished tables do not know"
        yield record_name(shard), known
    for shard in sorted(recorded & ids)[:1]:  # that the folders of parts are the run's own, and hold them
        commit = commits.record(shard)
        for table, part in sorted((commit.tables if commit else {}).items()):
            if files.size(part_name(table, shard)) != part["bytes"]:
                yield part_name(table, shard), "is not the part that was recorded"
    for table, described in sorted(manifest["tables"].items()):
        size = files.size(f"{table}.parquet")
        if size != described["bytes"]:
            yield f"{table}.parquet", "is missing" if size is None else "is not the table it finished with"
