"""Few large files instead of many small ones: the shards of a finished run are put together, each row once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.finished import same_shards
from gazetteer.data.runs.folder import Commit, RunFolder
from gazetteer.data.runs.plans import GROUPS
from gazetteer.data.storage.place import warn_of_columns
from gazetteer.jobs.label import shards as plan

MEGABYTES = 256
"""Of a group of shards, so many megabytes of files."""


def compact(run: str | Path, *, megabytes: int = MEGABYTES) -> dict[str, Any]:
    """Put the shards of each pass of a finished run together, row groups by site.

    What is put together with what is written down first. Then, group by group, the large parts are published and
    recorded like a shard's, and from that record on they count instead of the shards in them, whose records and parts
    are removed afterwards. So every row counts exactly once whenever this process ends, and the same command goes on
    where it ended; the run is marked as finished again last of all. Until then it is none: what reads the folders by
    itself may find rows twice. Where what was written down is damaged or gone, the records of the groups say it.

    Returns:
        ``run``, ``groups`` and ``shards``: how many groups there are and how many shards went into them;
        ``files_before`` and ``files_after``: parts of the run; ``planned_before``: whether an earlier call had decided
        what goes together, which then stays.

    Raises:
        InputError: no finished run, or a damaged one, of which nothing is changed.
        LockedError: another process holds the run.
    """
    if megabytes < 1:
        raise InputError(f"--megabytes must be at least 1, not {megabytes}.")
    store = RunFolder(run)
    if not store.exists() or not (store.is_complete() or store.groups_begun()):
        raise InputError(
            f"{run} is no finished run; gazetteer label finishes one, gazetteer status says where it stands."
        )
    warn_of_columns(str(run))
    with store.lock():
        manifest = store.read_json("manifest.json")
        store.mend_groups()
        _require_sound(store)
        _require_left_so(store, manifest)
        commits, with_parts = store.committed(), _parts(store)
        written = store.read_plan(GROUPS)
        planned_before = written is not None
        if written is None:
            written = store.write_plan(GROUPS, {"groups": _groups(store, commits, megabytes * 10**6)})
        groups = {name: list(shards) for name, shards in written["groups"].items()}
        store.clear_success()
        for name, shards in groups.items():
            if name not in commits and all(shard in commits for shard in shards):
                store.put_together(name, [commits[shard] for shard in shards], _info([commits[s] for s in shards]))
        store.finish({**manifest, "shards": store.shard_ids()})
    made = store.grouped()
    return {
        "run": str(run),
        "groups": len(made),
        "shards": sum(map(len, made.values())),
        "files_before": with_parts,
        "files_after": _parts(store),
        "planned_before": planned_before,
    }


def print_compacted(result: Mapping[str, Any]) -> None:
    """The result as a sentence."""
    print(
        f"{result['run']}: {result['shards']} shards lie in {result['groups']} groups; "
        f"{result['files_before']} files of parts before, {result['files_after']} now."
    )
    if result["planned_before"]:
        print("What goes together was decided by an earlier call, and --megabytes of this one changes nothing of it.")


def _require_sound(store: RunFolder) -> None:
    """InputError when a shard is not as recorded: what is put together is not computed again."""
    findings = store.check()
    if findings.edited:
        raise InputError(f"{store.path}/{findings.problems[0].where} {findings.problems[0].what}.")
    damaged = next((problem for problem in findings.problems if problem.shard is not None), None)
    if damaged is not None:
        raise InputError(
            f"{store.path} is damaged ({damaged.where}: {damaged.what}), and nothing was put together; run gazetteer "
            f"verify {store.path} --drop, then gazetteer label again."
        )


def _require_left_so(store: RunFolder, manifest: Any) -> None:
    """InputError unless the run is as it finished, but for what was put together since: it will be marked as finished.

    One whose shards were dropped, tried again or labelled anew since, or were to be, lacks its mark as one does whose
    compaction was cut off.
    """
    so = isinstance(manifest, dict) and same_shards(manifest.get("shards", ()), store.shard_ids(), store.grouped())
    if so and not store.is_complete():
        made = manifest.get("fingerprint", store.of_tables())
        so = made == store.of_tables() and not store.damaged_finals(manifest.get("tables", {}))
        so = so and not plan.unmade(store)
    if not so:
        raise InputError(
            f"{store.path} is not as it finished, and nothing was put together; {store.how_to_finish()}, and then "
            "compact it."
        )


def _parts(store: RunFolder) -> int:
    return sum(len(commit.tables) for commit in store.committed().values())


def _groups(store: RunFolder, commits: Mapping[str, Commit], most: int) -> dict[str, list[str]]:
    """Which shards are put together, by the name of the group: those of a pass, in its order, up to so many bytes.

    Retries stay apart, for a picture may have failed in a pass and be there from a later try.
    """
    groups: dict[str, list[str]] = {}
    for name in plan.PASSES:
        group: list[str] = []
        size = 0
        for shard in plan.read_pass(store, name) or ():
            own_bytes = (
                sum(part["bytes"] for part in commits[shard.id].tables.values()) if shard.id in commits else most
            )
            if group and (size + own_bytes > most or shard.id not in commits):
                groups[digest_json(group)[:32]] = group
                group, size = [], 0
            if shard.id in commits:
                group, size = [*group, shard.id], size + own_bytes
        if group:
            groups[digest_json(group)[:32]] = group
    return {name: group for name, group in groups.items() if len(group) > 1}


def _info(commits: Sequence[Commit]) -> dict[str, Any]:
    """What is kept with a group: counts and seconds of its shards together."""
    infos = [commit.info for commit in commits]
    info: dict[str, Any] = {}
    for pair in infos:
        for key, value in pair.items():
            if isinstance(value, dict) and key == "seconds":
                sums = info.setdefault(key, {})
                for stage, spent in value.items():
                    sums[stage] = round(sums.get(stage, 0.0) + spent, 3)
            elif isinstance(value, int) and not isinstance(value, bool):
                info[key] = info.get(key, 0) + value
            else:
                info.setdefault(key, value)
    return info
