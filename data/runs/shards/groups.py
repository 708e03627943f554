"""The groups of a run whose shards were put together: which shards each stands for, by its plan and by its record.

The plan says what is to be put together with what; a group counts, instead of the shards in it, from its own commit
record on. That record lists the same shards, so that a plan which was damaged or removed is written anew from it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.identity import Identity
from gazetteer.data.runs.plans import GROUPS, Plans, plan_path
from gazetteer.data.runs.shards.records import NAME, Commit, read_record, recorded_ids
from gazetteer.data.storage.files import Files

log = logging.getLogger(__name__)

_OF = "of"
"""Under which name a group's record lists its shards."""


class ShardGroups:
    """The groups of shards of the run whose files are given."""

    def __init__(self, files: Files, identity: Identity) -> None:
        self._files, self._plans = files, Plans(files, identity)
        self._identity = identity

    def grouped(self) -> dict[str, list[str]]:
        """The shards in every group that has a record.

        Raises:
            InputError: the plan is damaged, or another run's.
        """
        planned = self._planned()
        with_record = set(recorded_ids(self._files)) if planned else set()
        return {name: list(shards) for name, shards in planned.items() if name in with_record}

    def begun(self) -> bool:
        """Whether shards were ever planned to be put together, whatever became of the plan."""
        return self._files.size(plan_path(GROUPS)) is not None or bool(self._of_records())

    def mend(self) -> None:
        """Write the plan anew from the records of the groups, where it is damaged or gone; for the run's holder.

        Of a damaged plan without a record nothing is left: it is removed, and another can be made. One that is whole
        but does not name a group with a record gives way, too.
        """
        plan, problem = self._plans.checked(GROUPS)
        groups, path = self._of_records(), f"{self._files.root}/{plan_path(GROUPS)}"
        if plan is not None and groups.keys() <= plan.get("groups", {}).keys():
            return
        if groups:
            self._plans.replace(GROUPS, {"groups": groups})
            log.warning(
                "%s %s; it is written anew from the records of %d groups, and shards that were not put together yet "
                "stay as they are.", path, problem or "is missing or lacks a group", len(groups),
            )  # fmt: skip
        elif problem is not None:
            self._files.remove(plan_path(GROUPS))
            log.warning("%s %s; it is removed, for no record is of a group.", path, problem)

    def unplanned(self, commits: Iterable[Commit]) -> list[str]:
        """The groups among the records that the plan does not name: shards in them would count beside them."""
        groups = [commit.shard for commit in commits if shards_of_group(commit) is not None]
        planned = self._planned() if groups else {}
        return [group for group in groups if group not in planned]

    def refuse_unplanned(self, commits: Iterable[Commit]) -> None:
        """InputError when a record is of a group that the plan does not name."""
        for group in self.unplanned(commits):
            root = self._files.root
            raise InputError(
                f"{root}/{plan_path(GROUPS)} is missing, or does not name the group {group}; run gazetteer compact "
                f"{root}, which writes it anew from the records of the groups."
            )

    def _planned(self) -> Mapping[str, Sequence[str]]:
        planned: dict[str, list[str]] = (self._plans.read(GROUPS) or {}).get("groups", {})
        return planned

    def _of_records(self) -> dict[str, list[str]]:
        """The shards in every group that has a record, as the records say."""
        run = self._identity.digest()
        commits = (read_record(self._files, name) for name in recorded_ids(self._files))
        ours = (commit for commit in commits if commit is not None and commit.run == run)
        return {commit.shard: shards for commit in ours if (shards := shards_of_group(commit)) is not None}


def info_of_group(info: Mapping[str, Any], commits: Sequence[Commit]) -> dict[str, Any]:
    """What is kept in a group's record: what its writer wants kept, and the shards in it."""
    return {**info, _OF: [commit.shard for commit in commits]}


def shards_of_group(commit: Commit) -> list[str] | None:
    """The shards that a group's record lists; None: it is a shard's record."""
    shards = commit.info.get(_OF)
    if not isinstance(shards, list):
        return None
    return shards if all(isinstance(shard, str) and re.fullmatch(NAME, shard) for shard in shards) else None
