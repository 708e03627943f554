"""Shards, each committed exactly once: parts are published, then recorded create-only; the first record wins.

A process may be killed anywhere. A part without a commit record does not count: the shard is computed again
and the part replaced. On local folders a lock per shard keeps writers apart.

Behind URLs there are no locks, and two writers whose results differ (GPUs) must not write over each other: there a
writer first stages its parts under names that follow from their content, then creates the record, and only what the
one record names is copied to the parts' own names, by its writer or, should that one have died, by whoever comes next.
"""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from gazetteer.data.core.digests import digest_bytes
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.files.regular import NotRegularError
from gazetteer.data.runs.identity import Identity
from gazetteer.data.runs.publish import json_bytes
from gazetteer.data.runs.sealed import seal
from gazetteer.data.runs.shards.groups import ShardGroups
from gazetteer.data.runs.shards.parts import ShardParts, encoded, stage, staged_name
from gazetteer.data.runs.shards.records import (
    Commit,
    check_name,
    may_be_ours,
    part_name,
    read_record,
    record_name,
    recorded_ids,
    shard_of_part,
)
from gazetteer.data.storage.files import STAGING, Files
from gazetteer.data.tables.schemas import PART_TABLES

log = logging.getLogger(__name__)

_ATTEMPTS = 5
_STAGED = re.compile(r".+\.(?:[0-9a-f]{32}){1,2}")
_PUBLISHED = re.compile(r".+\.[0-9a-f]{64}|here\.[0-9a-f]{32}")


class Commits:
    """The committed shards of the run whose files are given."""

    def __init__(self, files: Files, identity: Identity) -> None:
        self._files, self._identity, self.groups = files, identity, ShardGroups(files, identity)

    def commit(
        self, shard_id: str, tables: dict[str, pa.Table], info: dict[str, Any], provenance: dict[str, Any]
    ) -> Commit:
        """Publish and record a shard (see `gazetteer.data.runs.folder.RunFolder.commit_shard`)."""
        check_name(shard_id)
        return self.record_parts(encoded(shard_id, tables, self.of_this_run(provenance)), info)

    def record_parts(self, parts: ShardParts, info: dict[str, Any]) -> Commit:
        """Record a shard whose parts were published (see `gazetteer.data.runs.folder.RunFolder.record_parts`)."""
        check_name(parts.shard)
        commit = Commit(parts.shard, parts.tables, json.loads(json_bytes(info)), self._identity.digest())
        for _ in range(_ATTEMPTS):
            with self._guard(parts.shard):
                counts = self._settle(commit, parts.contents)
            if counts is not None:
                return counts
        raise GazetteerError(f"Shard {parts.shard} of {self._files.root} cannot be committed: others keep changing it.")

    def valid(self, verify: bool, drop: bool = True) -> dict[str, Commit]:
        """Every shard that counts, by id; damaged ones are reported through logging and, with `drop`, dropped.

        Raises:
            InputError: a shard is of another run, or the plan of the groups is damaged or gone.
        """
        good = {}
        run = self._identity.digest()
        for shard_id in self.ids():
            commit, problem = (self._checked if drop else self._compared)(shard_id, verify)
            self.refuse_foreign(commit, run)
            if problem is not None and not drop:
                log.warning("Shard %s does not count: %s.", shard_id, problem)
            elif problem is not None:
                with self._guard(shard_id):
                    # Somebody may have computed it again since.
                    commit, problem = self._checked(shard_id, verify)
                    if problem is not None:
                        log.warning("Shard %s is dropped and will be computed again: %s.", shard_id, problem)
                        self._drop(shard_id)
            if commit is not None and problem is None:
                good[shard_id] = commit
        self.groups.refuse_unplanned(good.values())
        return good

    def ids(self) -> list[str]:
        """Sorted ids of the shards with a record, good or not; a group stands for the shards in it."""
        inside = {shard for shards in self.groups.grouped().values() for shard in shards}
        return [shard for shard in recorded_ids(self._files) if shard not in inside]

    def drop_grouped(self) -> None:
        """Forget the records and parts of shards that a group stands for."""
        with_record = set(recorded_ids(self._files))
        for shards in self.groups.grouped().values():
            for shard in shards:
                if shard in with_record:
                    self.drop(shard)

    def remove_staged(self) -> None:
        """Remove what writers staged and did not come to remove; for the run's holder, while nobody publishes."""
        wanted = _PUBLISHED if self._files.guards else _STAGED  # live writers of other files hold them, where they can
        for name in self._files.names(STAGING):
            if wanted.fullmatch(name):
                self._files.remove(f"{STAGING}/{name}")

    def record(self, shard_id: str) -> Commit | None:
        """The shard's record, or None when it is absent, not one, or not what was written."""
        return read_record(self._files, shard_id)

    def of_another_run(self, commit: Commit | None, run: str | None = None) -> bool:
        """Whether a record is of another run than this one (`run`: its digest, where the caller has it)."""
        return commit is not None and commit.run != (self._identity.digest() if run is None else run)

    def refuse_foreign(self, commit: Commit | None, run: str | None = None) -> None:
        """InputError when a record is of another run: made with other settings, models or autoencoders."""
        if commit is not None and self.of_another_run(commit, run):
            raise InputError(
                f"Shard {commit.shard} of {self._files.root} was made with other settings than this run's; take it out "
                f"with gazetteer verify {self._files.root} --drop, then run gazetteer label again."
            )

    def drop(self, shard_id: str) -> None:
        """Forget a shard, so that it is computed again."""
        check_name(shard_id)
        with self._guard(shard_id):
            self._drop(shard_id)

    def remove_orphans(self) -> None:
        """Remove what killed writers left: parts of ours that no record names. Other people's files stay."""
        for table in PART_TABLES:
            for name in self._files.names(table):
                shard_id = shard_of_part(name)
                if shard_id is None or not may_be_ours(shard_id):
                    continue
                with self._guard(shard_id):
                    commit = self.record(shard_id)
                    if commit is None or table not in commit.tables:
                        log.warning("Removing %s/%s: no commit record names it.", table, name)
                        self._files.remove(f"{table}/{name}")

    def of_this_run(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """Provenance with the run's fingerprint; GazetteerError when it names another one."""
        fingerprint = self._identity.fingerprint()
        if fingerprint is None:
            return provenance
        if json.loads(json_bytes(provenance.get("fingerprint", fingerprint))) != fingerprint:
            raise GazetteerError(f"A shard made with other settings cannot be committed to {self._files.root}.")
        return {**provenance, "fingerprint": fingerprint}

    def _guard(self, shard_id: str) -> Any:
        return self._files.guard(f"shard-{shard_id}")

    def _settle(self, commit: Commit, parts: dict[str, bytes]) -> Commit | None:
        """Under the shard's guard: the commit that counts, or None when it has to be tried again."""
        earlier, problem = self._checked(commit.shard, verify=True)
        self.refuse_foreign(earlier, commit.run)
        if earlier is not None and problem is None:
            return _first(earlier, commit)
        if self._files.size(record_name(commit.shard)) is not None:
            log.warning("Shard %s is committed again: %s.", commit.shard, problem)
            self._drop(commit.shard)
        publish = self._publish_guarded if self._files.guards else self._publish_staged
        return publish(commit, parts)

    def _publish_guarded(self, commit: Commit, parts: dict[str, bytes]) -> Commit | None:
        names = {table: part_name(table, commit.shard) for table in commit.tables}
        stage(self._files, {_staged_name(commit, table): content for table, content in parts.items()})
        for table, name in names.items():
            self._take_over(commit, table, name)  # what lies there is an orphan of a killed process: no record names it
        for table in PART_TABLES.keys() - commit.tables.keys():
            self._files.remove(part_name(table, commit.shard))
        created = self._files.create(record_name(commit.shard), seal(asdict(commit)), after=sorted(names.values()))
        return commit if created else None

    def _take_over(self, commit: Commit, table: str, name: str) -> None:
        """Give a staged part its name; GazetteerError when it is neither staged nor there already."""
        try:
            self._files.move(_staged_name(commit, table), name)
        except FileNotFoundError as error:
            if self._digest(name) != commit.tables[table]["sha256"]:
                raise GazetteerError(
                    f"{self._files.root}/{name} was published by a worker and is gone; does something clean up that "
                    "folder? Run the same command again: it resumes."
                ) from error

    def _publish_staged(self, commit: Commit, parts: dict[str, bytes]) -> Commit | None:
        stage(self._files, {_staged_name(commit, table): content for table, content in parts.items()})
        self._files.create(record_name(commit.shard), seal(asdict(commit)))
        # Whoever's record it is that was created: from here on it is what counts, and what was staged for it goes out.
        recorded, problem = self._checked(commit.shard, verify=True)
        for name in commit.tables:
            if recorded is not None and (problem is None or recorded.tables.get(name) != commit.tables[name]):
                self._files.remove(_staged_name(commit, name))
        return _first(recorded, commit) if recorded is not None and problem is None else None

    def _complete(self, commit: Commit) -> None:
        """Copy what is staged for a record to the parts' own names, where they lack it."""
        for name, part in commit.tables.items():
            path = part_name(name, commit.shard)
            if self._digest(path) != part["sha256"]:
                with suppress(FileNotFoundError):  # nothing staged, or somebody else has just finished this
                    self._files.copy(_staged_name(commit, name), path)
        for name in PART_TABLES.keys() - commit.tables.keys():
            self._files.remove(part_name(name, commit.shard))

    def _checked(self, shard_id: str, verify: bool) -> tuple[Commit | None, str | None]:
        """The record, and why it cannot be relied on (None: it can)."""
        commit, problem = self._compared(shard_id, verify)
        if commit is not None and problem is not None and not self._files.guards:
            self._complete(commit)
            commit, problem = self._compared(shard_id, verify=True)
        return commit, problem

    def _compared(self, shard_id: str, verify: bool) -> tuple[Commit | None, str | None]:
        commit = self.record(shard_id)
        if commit is None:
            return None, "its commit record is missing or corrupt"
        for table, part in commit.tables.items():
            path = part_name(table, shard_id)
            size = self._files.size(path)
            if size is None:
                return commit, f"{path} is missing"
            if size != part["bytes"] or (verify and self._digest(path) != part["sha256"]):
                return commit, f"{path} is damaged"
        return commit, None

    def _digest(self, name: str) -> str | None:
        try:
            return digest_bytes(self._files.read(name))
        except (FileNotFoundError, NotRegularError):
            return None

    def _drop(self, shard_id: str) -> None:
        # The record goes first: parts without a record do not count, a record without parts would lie.
        self._files.remove(record_name(shard_id))
        for table in PART_TABLES:
            self._files.remove(part_name(table, shard_id))


def _first(earlier: Commit, later: Commit) -> Commit:
    if earlier.tables != later.tables:
        log.info("Shard %s was computed twice with different results; the first is kept.", later.shard)
    return earlier


def _staged_name(commit: Commit, table: str) -> str:
    return staged_name(commit.shard, table, commit.tables[table]["sha256"])
