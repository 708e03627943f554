"""Judge a run: is everything there and as recorded, what is not, and what to do about it."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompts import Shard
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.runs.plans import what_to_do
from gazetteer.data.runs.verify import Findings, RunProblem
from gazetteer.data.tables.schemas import FINAL_TABLES
from gazetteer.jobs.config.kept import RECORD as CONFIG
from gazetteer.jobs.label import shards as plan

SOUND, DAMAGED, UNFINISHED = "sound", "damaged", "unfinished"


_BESIDE = {"causal.parquet": "causal", "examiners.parquet": "examine"}
"""Tables that commands of their own write: a run is whole without them."""


def verify(run: str | Path, *, drop: bool = False) -> dict[str, Any]:
    """Check every digest, count, schema and plan of a run; reads every byte of it.

    Args:
        drop: also forget the shards that are damaged and unmark the run, so that `gazetteer label` computes
            exactly those again; needs the run's lock.

    Returns:
        ``verdict`` (one of SOUND, DAMAGED, UNFINISHED), ``problems`` (``where``, ``what``, ``shard``), ``advice``
        in a sentence, and counts.

    Raises:
        InputError: no run was ever started there.
        LockedError: with `drop`, when another process holds the run.
    """
    store = RunFolder(run)
    findings = store.check()
    # Plans are bound to run.json: where that was edited, they cannot be read before it is put back.
    planned = [] if findings.edited else _in_groups(store, _planned(store, findings))
    problems = [*findings.problems, *_unreadable(store), *_not_as_planned(planned, findings), *_stray(findings)]
    missing = [shard.id for shard in planned if shard.id not in findings.shards]
    open_shards = [shard for shard in missing if shard not in {problem.shard for problem in problems}]
    if findings.complete:
        problems += [RunProblem(f"_meta/commits/{shard}.json", "is missing", shard) for shard in open_shards]
    verdict = DAMAGED if problems else SOUND if findings.complete else UNFINISHED
    if drop and problems and not findings.edited:
        _drop(store, problems)
    return {
        "run": str(run),
        "verdict": verdict,
        "problems": [vars(problem) for problem in problems],
        "advice": _advice_of(store, findings, verdict, problems, len(missing), drop),
        "shards": len(findings.shards),
        "planned": len(planned),
        "orphans": len(findings.orphans),
        "failing": None if findings.edited else _failing(store, findings),
        "rows": dict(sorted(findings.rows.items())),
        "bytes": findings.bytes,
    }


def print_verdict(report: dict[str, Any]) -> None:
    """The report as text."""
    for problem in report["problems"]:
        print(f"{problem['where']} {problem['what']}")
    print(f"{report['run']}: {report['shards']} of {report['planned']} planned shards, {report['bytes']:,} bytes read")
    print("rows: " + ", ".join(f"{table} {rows}" for table, rows in report["rows"].items()))
    print(f"{report['verdict']}: {report['advice']}")


def _planned(store: RunFolder, findings: Findings) -> list[Shard]:
    """Every shard that was written down; a plan that cannot be read becomes a problem."""
    shards: list[Shard] = []
    retries = (f"retry-{number}" for number in itertools.count(1))
    for name in itertools.chain(plan.PASSES, retries):
        try:
            part = plan.read_pass(store, name)
        except InputError:
            what = f"is damaged; {what_to_do(name, store.path)}"
            findings.problems.append(RunProblem(f"_meta/{name}.json", what))
            continue
        if part is None and name not in plan.PASSES:
            return shards
        if part is None and findings.complete:
            findings.problems.append(RunProblem(f"_meta/{name}.json", "is missing"))
        shards += part or []
    return shards


def _in_groups(store: RunFolder, planned: list[Shard]) -> list[Shard]:
    """The same with the groups that stand for shards instead of these."""
    of = {shard.id: shard for shard in planned}
    groups = {name: [of[shard] for shard in shards if shard in of] for name, shards in store.grouped().items()}
    inside = {shard.id for shards in groups.values() for shard in shards}
    put = [Shard(name, tuple(item for shard in shards for item in shard.items)) for name, shards in groups.items()]
    return [*(shard for shard in planned if shard.id not in inside), *put]


def _not_as_planned(planned: list[Shard], findings: Findings) -> list[RunProblem]:
    """Sound shards whose items are not those that were planned."""
    problems = []
    for shard in planned:
        stored = findings.shards.get(shard.id)
        wanted = sorted(item.image_id for item in shard.items)
        if stored is not None and stored != wanted:
            odd = sorted((Counter(wanted) - Counter(stored)) + (Counter(stored) - Counter(wanted)))
            what = f"says other things than were planned became of {len(odd)} pictures, the first {odd[0]}"
            problems.append(RunProblem(f"_meta/commits/{shard.id}.json", what, shard.id))
    return problems


def _unreadable(store: RunFolder) -> list[RunProblem]:
    """The configuration that the run keeps for the verbs that read it, where it can be read no more."""
    try:
        store.read_json(CONFIG)
    except InputError:
        what = "cannot be read: once it is removed, verbs that need it take the run's configuration by --config"
        return [RunProblem(f"_meta/{CONFIG}", what)]
    return []


def _stray(findings: Findings) -> list[RunProblem]:
    problems = [
        RunProblem(name, "is no part of the run; readers of the folder may choke on it") for name in findings.strays
    ]
    if findings.complete:
        problems += [RunProblem(name, "is not counted by any commit record") for name in findings.orphans]
    return problems


def _drop(store: RunFolder, problems: list[RunProblem]) -> None:
    with store.lock():
        store.clear_success()
        for shard in sorted({problem.shard for problem in problems if problem.shard}):
            store.drop_shard(shard)


def _failing(store: RunFolder, findings: Findings) -> int:
    """Pictures that failed and have no picture from a later try; as far as sound shards say."""
    sound = sorted(findings.shards)
    failed = set(store.read_table("failures", sound, ["item"])["item"].to_pylist())
    return len(failed - set(store.read_table("images", sound, ["image_id"])["image_id"].to_pylist()))


def _advice_of(
    store: RunFolder, findings: Findings, verdict: str, problems: list[RunProblem], missing: int, dropped: bool
) -> str:
    if findings.edited:
        others = f" (beside {len(problems) - 1} other problems)" if len(problems) > 1 else ""
        kept = ", and nothing was dropped" if dropped else ""
        return f"put _meta/run.json back as it was, which computes nothing again{kept}; then verify once more{others}."
    if verdict == SOUND:
        return "everything is as recorded."
    if verdict == UNFINISHED:
        return f"nothing is damaged; {store.how_to_finish()}."
    return _advice(store.path, problems, missing, dropped)


def _advice(run: str, problems: list[RunProblem], missing: int, dropped: bool) -> str:
    by_hand = sorted({p.where for p in problems if p.shard is None and not _rewritten(p)})
    if missing == 0 and all(_beside(problem) for problem in problems):
        written = [f"gazetteer {verb} {run} writes {name} again" for name, verb in _BESIDE.items() if name in by_hand]
        said = f" ({', '.join(written)})" if written else ""
        return f"remove {_listed(by_hand)}{said}; nothing else is damaged."
    shards = f"{missing} shard{'s' * (missing != 1)}"
    again = f"run gazetteer label --out {run} with its configuration again: it computes {shards}"
    first = f"remove {_listed(by_hand)}, then " if by_hand else ""
    if dropped:
        return f"{first}{again} and the final tables anew."
    return f"{first}run gazetteer verify {run} --drop, then {again} and the final tables anew."


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def _beside(problem: RunProblem) -> bool:
    """Whether the run is whole without the file."""
    return problem.where in (*_BESIDE, f"_meta/{CONFIG}") or problem.what.startswith("is no part of the run")


def _rewritten(problem: RunProblem) -> bool:
    """Whether carrying the run to its end writes the file again, or removes it."""
    name = problem.where
    final = name.removesuffix(".parquet") in FINAL_TABLES or name == "_meta/manifest.json"
    commits = name.startswith("_meta/commits/")
    return final or commits or problem.what.startswith(("is not counted", "is missing"))
