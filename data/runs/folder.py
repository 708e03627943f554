"""The run folder: everything a run leaves behind.

Layout, below a folder or URL::

    <table>/part-<shard>.parquet    the parts, one a shard, published create-only
    labels.parquet, …               the final tables
    _meta/run.json                  what the run was started with; never changes once a shard is committed
    _meta/relabelled.json           label settings that count instead, of a run that was relabelled
    _meta/commits/<shard>.json      the truth: which parts count, with their digests (shards/commits.py)
    _meta/groups.json               which shards were put together, where a run was compacted (shards/groups.py)
    _meta/{plan,progress,manifest}.json, _meta/_SUCCESS (what is no Parquet: readers choke on stray files)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import local_path
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.runs.finals import Finals
from gazetteer.data.runs.finished import Mark, how_to_finish, require_whole
from gazetteer.data.runs.identity import RUN, Identity
from gazetteer.data.runs.plans import Plans
from gazetteer.data.runs.publish import json_bytes
from gazetteer.data.runs.reading import read_parts
from gazetteer.data.runs.shards.commits import Commits
from gazetteer.data.runs.shards.groups import info_of_group
from gazetteer.data.runs.shards.merge import put_together
from gazetteer.data.runs.shards.parts import ShardParts, Workshop, open_workshop
from gazetteer.data.runs.shards.records import Commit, check_name
from gazetteer.data.runs.verify import Findings, check_files
from gazetteer.data.storage.open import open_files
from gazetteer.data.storage.runlock import StillMine, run_lock

__all__ = ["Commit", "RunFolder", "open_finished"]


class RunFolder:
    """A run at a local folder or an fsspec URL; nothing is created before the first write."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._files = open_files(path)
        self._identity = Identity(self._files)
        self._commits = Commits(self._files, self._identity)
        self._finals, self._plans = Finals(self._files), Plans(self._files, self._identity)
        self._mark = Mark(self._files)
        self._still_mine: StillMine = lambda: None

    def __repr__(self) -> str:
        return f"RunFolder({self.path!r})"

    def free_bytes(self) -> int | None:
        """How much can still be written to where the run lies; None behind URLs."""
        return self._files.free()

    def exists(self) -> bool:
        """Whether a run was ever started here; InputError when that cannot be: the bucket does not exist."""
        if self._files.size(RUN) is not None:
            return True
        reason = self._files.why_absent()
        if reason is not None:
            raise InputError(f"{self._files.root} cannot be read: {reason}.")
        return False

    def inside(self, name: str) -> RunFolder:
        """The run in a sub-folder of this one; InputError when a link lies there, which may lead anywhere."""
        check_name(name)
        folder = local_path(self.path)
        if folder is not None and (folder / name).is_symlink():
            raise InputError(f"{self.path}/{name} is a link; put the folder itself there.")
        return RunFolder(f"{self.path.rstrip('/')}/{name}")

    def open_or_create(self, fingerprint: dict[str, Any]) -> RunFolder:
        """Start the run, or resume it if it was started with the same `fingerprint` (a flat dict of digests).

        Until the first shard is committed another fingerprint starts the run over.

        Raises:
            InputError: the run has shards of another one (the sentence names every differing key), or the folder is
                neither empty nor a run.
            LockedError: another process works on the run, and it would have to start over.
        """
        self._identity.claim(fingerprint, self.lock)
        return self

    def write_json(self, name: str, obj: Any) -> None:
        """Put `obj` at ``_meta/<name>``, atomically over what was there."""
        self._files.replace(f"_meta/{name}", json_bytes(obj))

    def write_top_json(self, name: str, obj: Any) -> None:
        """Put `obj` at ``<name>``, beside folders of runs, atomically; never where tables lie."""
        check_name(name)
        self._files.replace(name, json_bytes(obj))

    def read_json(self, name: str) -> Any:
        """The object in ``_meta/<name>``, None when absent; InputError naming the file when it is corrupt, or none."""
        if name == "run.json":
            return self._identity.fingerprint()
        try:
            return json_object(self._files.read(f"_meta/{name}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(
                f"{self._files.root}/_meta/{name} is corrupt ({error}); move it away and try again."
            ) from error

    def of_tables(self) -> dict[str, Any]:
        """The fingerprint that the final tables follow from (`gazetteer.data.runs.identity.Identity.of_tables`)."""
        return self._identity.of_tables() or {}

    def write_plan(self, name: str, plan: dict[str, Any], over: bool = False) -> dict[str, Any]:
        """Put a plan at ``_meta/<name>.json`` unless one is there, or `over` it (`gazetteer.data.runs.plans.Plans`)."""
        if over:
            self._plans.replace(name, plan)
        return self._plans.write(name, plan)

    def read_plan(self, name: str) -> dict[str, Any] | None:
        """The plan at ``_meta/<name>.json``, or None (`gazetteer.data.runs.plans.Plans.read`)."""
        return self._plans.read(name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run, alone; LockedError when another process does. Freed when the holder dies.

        What killed writers left half-written is removed on the way in.
        """
        with run_lock(self._files) as self._still_mine:
            try:
                self._identity.confirm()
                self._files.sweep()
                if self._files.guards:  # behind URLs a record may stand for what is still staged
                    self._commits.remove_staged()
                yield
            finally:
                self._still_mine = lambda: None

    def commit_shard(
        self, shard_id: str, tables: dict[str, pa.Table], info: dict[str, Any], provenance: dict[str, Any]
    ) -> Commit:
        """Publish a shard's parts and record them; if the shard is committed already, that commit stays.

        Args:
            shard_id: letters, digits, ``-``, ``_`` and ``.`` only.
            tables: by name in `gazetteer.data.tables.schemas.PART_TABLES`, cast to their schemas.
            info: JSON-ready, kept in the record.
            provenance: goes into every file's metadata (`gazetteer.data.tables.provenance.provenance`).

        Returns:
            The commit that counts, which is an earlier one if there was.

        Raises:
            GazetteerError: a table does not fit its schema, or the storage refused (nothing torn is left).
            InputError: the shard, or what is there of it, was made with other settings than the run's.
            LockedError: another process has taken the run over.
        """
        self._still_mine()
        return self._commits.commit(shard_id, tables, info, provenance)

    def workshop(self, provenance: dict[str, Any]) -> Workshop:
        """Where workers may publish shards of this run, for the process that holds its lock."""
        return open_workshop(self._files, self.path, self._commits.of_this_run(provenance))

    def record_parts(self, parts: ShardParts, info: dict[str, Any]) -> Commit:
        """Record a shard that a worker has published, as `commit_shard`; GazetteerError when that is gone.

        What is staged was hashed by who staged it, and is not read again.
        """
        self._still_mine()
        return self._commits.record_parts(parts, info)

    def committed(self, verify: bool = False, drop: bool = True) -> dict[str, Commit]:
        """Every shard that counts, by id; one with a missing or damaged part does not, which is a warning.

        Args:
            verify: compare the parts' sha256, not only their sizes.
            drop: forget damaged ones, so that they are computed again; for the run's holder: readers change nothing.
        """
        return self._commits.valid(verify, drop)

    def check(self) -> Findings:
        """Everything the run has recorded, compared with what lies there; changes nothing.

        Raises:
            InputError: no run was ever started here.
        """
        self.exists()
        return check_files(self._files, self._identity)

    def shard_ids(self) -> list[str]:
        """Sorted ids of the shards with a commit record, unchecked; a group stands for the shards in it."""
        return self._commits.ids()

    def grouped(self) -> dict[str, list[str]]:
        """The shards in every group of shards that counts instead of them (`gazetteer.jobs.operate.compact`)."""
        return self._commits.groups.grouped()

    def groups_begun(self) -> bool:
        """Whether shards of the run were ever planned to be put together, whatever became of the plan."""
        return self._commits.groups.begun()

    def mend_groups(self) -> None:
        """Write a damaged or lost plan of the groups anew (`gazetteer.data.runs.shards.groups.ShardGroups.mend`)."""
        self._still_mine()
        self._commits.groups.mend()

    def put_together(self, name: str, commits: Sequence[Commit], info: dict[str, Any]) -> Commit:
        """Publish and record the parts of several shards as those of the group `name`, as `commit_shard` does."""
        self._still_mine()
        return self._commits.record_parts(put_together(self._files, name, commits), info_of_group(info, commits))

    def drop_shard(self, shard_id: str) -> None:
        """Forget a shard, record first, so that it is computed again."""
        self._commits.drop(shard_id)

    def read_table(
        self,
        name: str,
        shards: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        filter: Any = None,
        encoded: bool = False,
    ) -> pa.Table:
        """Rows of the committed parts of table `name`, shards in sorted order.

        Args:
            shards: only these (InputError if one is not committed); default all.
            columns: only these; default all.
            filter: a `pyarrow.compute.Expression`, pyarrow's list-of-tuples form, or the rows of a site
                (`gazetteer.data.runs.reading.SiteRows`).
            encoded: leave strings dictionary-encoded, as files hold them.

        Raises:
            InputError: no such table or column, or a part that is missing or corrupt.
        """
        return read_parts(self._files, self._identity, self._commits, name, shards, columns, filter, encoded)

    def write_final(self, name: str, table: pa.Table, provenance: dict[str, Any]) -> dict[str, Any]:
        """Put ``<name>.parquet`` at the top (`gazetteer.data.runs.finals.Finals.write`)."""
        return self._finals.write(name, table, provenance)

    def has_final(self, name: str) -> bool:
        """Whether a final table was written."""
        return self._finals.has(name)

    def read_final(self, name: str, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:
        """A final table (`gazetteer.data.runs.finals.Finals.read`)."""
        return self._finals.read(name, columns, filter)

    def damaged_finals(self, recorded: dict[str, dict[str, Any]]) -> dict[str, str]:
        """The final tables that are not as `recorded` (``rows``, ``bytes``, ``sha256`` by name), and what is wrong."""
        return self._finals.damaged(recorded)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Remove what no commit names or a group stands for, write ``manifest.json``, then ``_SUCCESS``."""
        self._commits.drop_grouped()
        self._commits.remove_orphans()
        self._commits.remove_staged()
        self._mark.put(manifest)

    def is_complete(self) -> bool:
        """Whether the run finished and the manifest is the one it finished with."""
        return self._mark.is_there()

    def manifest(self) -> dict[str, Any] | None:
        """What the run finished with (``shards`` and ``tables`` are always there), or None while it has not."""
        return self._mark.manifest()

    def require_finished(self) -> dict[str, Any]:
        """The same for readers of the tables: InputError unless they are as they were left, by what is seen at once
        (`gazetteer.data.runs.finished.require_whole`)."""
        return require_whole(self._files, self._identity, self._plans, self._commits)

    def how_to_finish(self) -> str:
        """What finishes the run (`gazetteer.data.runs.finished.how_to_finish`)."""
        return how_to_finish(self._files, self._identity, self._commits)

    def clear_success(self) -> None:
        """Say that the run is under way again."""
        self._mark.remove()

    def delete(self) -> None:
        """Delete the run, its mark of completeness first; raises LockedError while a process works on it."""
        with self.lock():
            self.clear_success()
            self._files.remove_tree()


def open_finished(run: str | os.PathLike[str] | RunFolder) -> RunFolder:
    """A run whose tables are about to be read; raises InputError as `RunFolder.require_finished`."""
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    folder.require_finished()
    return folder
