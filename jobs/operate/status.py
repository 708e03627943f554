"""Say where a run stands, from its files alone: on any machine that can read them, while it runs and afterwards."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.storage.runlock import dead_here

RATES = ("images_per_second", "seconds_left")
SILENT = 6
"""A running process that has not written for so many of its intervals is said to be silent."""


def status(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Where the run stands; nothing is written and no lock is taken.

    Returns:
        ``state``: ``complete``, ``running``, ``silent`` (it was running and has stopped writing, or was a process of
        this machine that is no more: killed, or cut off), ``stopped``, ``failed`` or ``planned`` (nobody has worked on
        it yet); ``shards``, ``images``, ``images_per_second``, ``seconds_left``, ``stage``, ``error``, ``host``,
        ``process``, ``started``, ``updated``, ``seconds_silent`` (by this machine's clock), ``gone`` (it was running,
        and its process is known to be no more), ``failing`` (pictures, of a complete run).

    Raises:
        InputError: there is no run, or what it was started with cannot be read.
    """
    store = RunFolder(run)
    if not store.exists():
        raise InputError(f"{run} is not a run folder: _meta/run.json is missing; run gazetteer label.")
    store.read_json("run.json")  # that it cannot be read is said here as everywhere
    state = dict.fromkeys(
        ("stage", "error", "images_per_second", "seconds_left", "host", "process", "started", "updated", "interval")
    )
    progress = store.read_json("progress.json") or {}
    if not _sound(progress):
        raise InputError(
            f"{store.path}/_meta/progress.json is corrupt; remove it: the next gazetteer label writes it anew."
        )
    shards = {"done": _done(store), "total": _planned(store), "with_failures": None}
    images: dict[str, Any] = {"done": None, "total": None, "failed": None}
    result: dict[str, Any] = {"run": os.fspath(run), "state": "planned", **state, "failing": None}
    result |= {key: progress[key] for key in state if key in progress}
    # What is committed counts: progress.json may lag behind it, or be of a process that was killed.
    shards |= {key: value for key, value in dict(progress.get("shards") or {}).items() if key != "done" and value}
    images |= dict(progress.get("images") or {})
    gone = progress.get("state") == "running" and dead_here(progress.get("machine"), progress.get("process"))
    result |= {"shards": shards, "images": images, "seconds_silent": _age(progress.get("updated")), "gone": gone}
    if progress:
        result["state"] = "silent" if gone else _state(progress, result["seconds_silent"])
    if store.is_complete():
        manifest = store.read_json("manifest.json")
        result |= {"state": "complete", "stage": None, "error": None, "failing": len(manifest["failing"])}
        result |= dict.fromkeys(RATES)
        result["shards"] |= {"done": shards["done"], "total": shards["done"]}
        result["images"]["done"] = manifest["images"]
    elif result["state"] != "running":
        result |= dict.fromkeys(RATES)
        if shards["done"] != dict(progress.get("shards") or {}).get("done"):
            images |= _counted(store)
    return result


def print_status(state: dict[str, Any]) -> None:
    """The status as text."""
    shards, images = state["shards"], state["images"]
    stage = f" ({state['stage']})" if state["stage"] and state["state"] in ("running", "silent", "failed") else ""
    where = f", process {state['process']} on {state['host']} since {state['started']}" if state["host"] else ""
    print(f"{state['run']}: {state['state']}{stage}{where}")
    flawed = f", {shards['with_failures']} with failures" if shards["with_failures"] else ""
    print(f"shards    {shards['done']} of {_known(shards['total'])} committed{flawed}")
    failed = f", {images['failed']} failed" if images["failed"] else ""
    print(f"pictures  {_known(images['done'])} of {_known(images['total'])}{failed}")
    if state["images_per_second"] is not None:
        left = "" if state["seconds_left"] is None else f", about {state['seconds_left']:.0f} s left"
        print(f"rate      {state['images_per_second']:.2f} pictures/s{left}")
    if state["state"] == "complete" and state["failing"]:
        print(f"{state['failing']} pictures failed and are in failures/; --retry-failed tries them again.")
    if state["stage"] == "reduce" and state["state"] in ("silent", "stopped", "failed"):
        print("every picture is committed; only the final tables are missing")
    if state["state"] == "silent" and state["gone"]:
        print(f"Process {state['process']} of this machine is no more; give its command again, and it resumes.")
    elif state["state"] == "silent":
        print(f"It has not been heard of for {state['seconds_silent']:.0f} s; give its command again, and it resumes.")
    if state["state"] in ("stopped", "failed"):
        print(f"{state['error'] or 'It was stopped'}; give its command again, and it resumes.".replace(".;", ";"))


def _sound(progress: Any) -> bool:
    """Whether progress.json is what a run writes, as far as it is counted with."""
    if progress == {}:
        return True
    return (
        isinstance(progress, dict)
        and all(isinstance(progress.get(name) or {}, dict) for name in ("shards", "images"))
        and all(isinstance(progress.get(name) or 0, int | float) for name in ("interval", *RATES))
        and _age(progress.get("updated")) is not None
    )


def _state(progress: dict[str, Any], silent: float | None) -> str:
    state = str(progress.get("state"))
    if state == "running":
        limit = SILENT * float(progress.get("interval") or 1.0)
        return "running" if silent is not None and silent <= limit else "silent"
    # A run that ended as complete and has lost its mark since was taken up again, and left.
    return "failed" if state == "failed" else "stopped"


def _counted(store: RunFolder) -> dict[str, int]:
    """Pictures of the shards that are committed, where their records say it: what was killed wrote them down late."""
    done = [commit.info["images"] for commit in store.committed(drop=False).values() if "images" in commit.info]
    return {"done": sum(done)} if done else {}


def _done(store: RunFolder) -> int:
    """Shards that are committed, each of those that were put together counted."""
    return len(store.shard_ids()) + sum(len(shards) - 1 for shards in store.grouped().values())


def _planned(store: RunFolder) -> int | None:
    """Shards of the passes planned so far; None before the first plan."""
    number = 1
    try:
        plans = [store.read_json(f"plan-{number}.json") for number in (1, 2)]
        while (retry := store.read_json(f"retry-{number}.json")) is not None:
            plans.append(retry)
            number += 1
        counts = [_shards(len(plan["items"]), plan["shard_size"]) for plan in plans if plan is not None]
    except (InputError, TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(
            f"A plan of {store.path} (_meta/plan-…, _meta/retry-…) is no plan any more; gazetteer verify {store.path} "
            "says which, and what to do."
        ) from error
    return sum(counts) if counts else None


def _shards(items: int, size: int) -> int:
    return -(-items // size) if size else min(items, 1)


def _age(updated: Any) -> float | None:
    try:
        # A stamp from the future is that of a clock that jumped, and tells as little as an old one.
        return round(abs((datetime.now(timezone.utc) - datetime.fromisoformat(updated)).total_seconds()), 1)
    except (TypeError, ValueError):  # one without a time zone too
        return None


def _known(value: Any) -> str:
    return "?" if value is None else str(value)
