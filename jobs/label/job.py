"""The labelling job: plan, carry out what is missing, draw more pictures where features lack them, reduce, finish."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.prompts import Item, Shard
from gazetteer.data.runs.folder import Commit, RunFolder
from gazetteer.data.tables.provenance import provenance
from gazetteer.data.tables.schemas import FAILURES, LABELLING_TABLES
from gazetteer.jobs.config.fingerprint import REUSABLE, differing, fingerprint, picture_digest, portable_config
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.ray.metrics import RunMetrics
from gazetteer.jobs.executors.task import Job, Lost, Task
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.label.preflight import space_problem
from gazetteer.jobs.label.progress import Progress
from gazetteer.jobs.label.run_state import RunState
from gazetteer.labeling.evidence.counts import sum_evidence
from gazetteer.labeling.evidence.run_codes import all_codes, code_grids
from gazetteer.labeling.pipeline.checks import check_inputs
from gazetteer.labeling.pipeline.reuse import ReusingStages
from gazetteer.labeling.pipeline.sae_check import report
from gazetteer.labeling.pipeline.stages import STAGES, ShardResult, Stages
from gazetteer.labeling.rules.reduce import reduce_tables
from gazetteer.sae.model.files import read_config

log = logging.getLogger(__name__)


def label(
    config: RunConfig, out: str | Path, *, retry_failed: bool = False, reuse: str | Path | None = None
) -> dict[str, Any]:
    """Carry a labelling run to its end, from wherever it stands.

    A finished run whose tables are as recorded costs nothing: neither Ray nor a model is started. Otherwise every
    part is compared with its digest, and what is damaged is done again.

    Args:
        retry_failed: try again exactly the pictures that failed.
        reuse: another run, whose images and segments are taken over where this one wants the same pictures
            (`gazetteer.labeling.pipeline.reuse`); the tables are the same without it, only later.

    Returns:
        the manifest: counts, seconds per stage, tables with their digests, pictures that still fail.

    Raises:
        InputError: bad configuration or input, or a run that was started with other settings.
        LockedError: another process holds the run.
        GazetteerError: too many pictures failed, no space left, or workers that keep dying.
    """
    store = RunFolder(out)
    marks = fingerprint(config)
    pool = plan.read_pool(config)
    if reuse is not None:
        require_reusable(marks, reuse)
    store.open_or_create(marks)
    with store.lock():
        manifest = _finished(store)
        if manifest is not None and not (retry_failed and open_failures(store)):
            return manifest
        if not store.shard_ids():
            check_inputs(config.stages, here=not config.ray_address or config.executor == "serial")
        store.clear_success()
        store.committed(verify=True)
        with _Run(config, store, marks, reuse) as run:
            run.carry_out(pool, retry_failed)
            before = store.shard_ids()
            if before != sorted(store.committed(verify=True)):  # damaged while the run went on
                run.carry_out(pool, False)
            return run.finish()


def _finished(store: RunFolder) -> dict[str, Any] | None:
    """The manifest of a run that needs nothing: every part there in its size, the final tables as recorded."""
    manifest = store.manifest()
    if manifest is None or set(manifest["shards"]) != set(store.committed()):
        return None
    problems = store.damaged_finals(manifest["tables"])
    for name, problem in problems.items():
        log.warning("%s.parquet %s and is made again.", name, problem)
    return None if problems else manifest


def require_reusable(marks: Mapping[str, Any], base: str | Path) -> None:
    """InputError, naming the keys, unless `base` is a run whose pictures and segments are those of these settings."""
    store = RunFolder(base)
    if not store.exists():
        raise InputError(f"{base} is not a run folder: _meta/run.json is missing; nothing can be reused.")
    others = differing(marks, store.read_json("run.json"), REUSABLE)
    if others:
        raise InputError(f"The pictures or segments of {base} were made with other settings: {', '.join(others)}.")


def open_failures(store: RunFolder) -> list[str]:
    """Image ids that failed and have no picture from a later try, sorted."""
    failed = set(store.read_table("failures", columns=["item"])["item"].to_pylist())
    return sorted(failed - set(store.read_table("images", columns=["image_id"])["image_id"].to_pylist()))


class _Run:
    """One process's work on a run; starts its executor only when there is something to do."""

    def __init__(
        self, config: RunConfig, store: RunFolder, marks: dict[str, Any], reuse: str | Path | None = None
    ) -> None:
        self.config, self.store, self.marks = config, store, marks
        self.provenance = provenance(marks, portable_config(config))
        self.pictures = picture_digest(marks)
        self.started = time.monotonic()
        self.explained: dict[str, float] = {}
        self.executor = Executor(config, self._last_words)
        build = partial(ReusingStages, config.stages, str(reuse)) if reuse else partial(Stages, config.stages)
        self.task = Task(build, join_results, lost_item, STAGES, config.limits.picture_seconds)
        self.state = RunState(partial(store.write_json, "progress.json"))
        self.metrics = RunMetrics(store.path.rstrip("/").rpartition("/")[2])

    def __enter__(self) -> _Run:
        self.state.start()
        log.info("run started", extra={"run": self.store.path, "pid": os.getpid()})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            self.executor.close()
        finally:
            ended = "complete" if error is None else "failed" if isinstance(error, Exception) else "stopped"
            self.state.end(ended, str(error) if ended == "failed" else None)
            log.info("run %s", ended, extra={"error": str(error)} if ended == "failed" else {})

    def _last_words(self, problem: str) -> None:
        """Said by another thread when this process ends on the spot, and nothing here will be carried on."""
        self.state.end("failed", problem)
        print(f"gazetteer: {problem}", file=sys.stderr, flush=True)

    def carry_out(self, pool: Sequence[str], retry_failed: bool) -> None:
        """Do every shard of every pass that is not committed yet."""
        total = self.config.images
        shards = plan.read_pass(self.store, "plan-1") or plan.write_pass(
            self.store, "plan-1", plan.first_pass(pool, self.config, self.pictures), self.config.shard_size
        )
        self._do(shards, "label", total)
        more = plan.read_pass(self.store, "plan-2")
        if more is None:
            items = plan.coverage_pass(pool, shards, self.store, self.config, self.pictures)
            more = plan.write_pass(self.store, "plan-2", items, self.config.shard_size)
        self._do(more, "cover", total)
        self._retry([*shards, *more], retry_failed)
        self._check_failures(total)

    def _retry(self, shards: Sequence[Shard], wanted: bool) -> None:
        """Finish retries begun earlier, then, when wanted, one more for exactly what still fails."""
        number = 1
        while (shard := plan.read_pass(self.store, f"retry-{number}")) is not None:
            self._do(shard, "retry", len(shard[0].items) if shard else 0)
            number += 1
        failing = set(open_failures(self.store)) if wanted else set()
        items = [item for shard in shards for item in shard.items if item.image_id in failing]
        if items:
            self._do(plan.write_pass(self.store, f"retry-{number}", items, 0), "retry", len(items))

    def _do(self, shards: Sequence[Shard], name: str, total: int) -> None:
        committed = self.store.committed()
        todo = [Job(shard.id, shard.items) for shard in shards if shard.id not in committed]
        if not todo:
            return
        before = sum(commit.info["images"] for commit in committed.values()) if name != "retry" else 0
        problem = space_problem(self.store, committed.values(), sum(len(job.items) for job in todo))
        if problem is not None:
            raise GazetteerError(problem)
        progress = Progress(name, total, before)
        self._show(name, shards, committed)

        def done(job: Job, result: ShardResult) -> None:
            info = {**result.counts, "seconds": {k: round(v, 3) for k, v in result.seconds.items()}}
            if result.explained:
                info["explained_variance"] = result.explained
                if not self.explained:
                    self.explained = result.explained
                    print(f"{name}: {report(result.explained)}", flush=True, file=sys.stderr)
            self.store.commit_shard(job.id, result.tables, info, self.provenance)
            progress.add(result.counts["images"], result.counts["failures"])
            self.state.shard(result.counts["images"], result.counts["failures"])
            self.metrics.shard(result.counts, result.seconds, self.state.seconds_left)
            log.info("shard committed", extra={"shard": job.id, "stage": name, **info})
            for failure in result.tables["failures"].to_pylist():
                reason = f"{failure['error']}: {failure['message']}"
                log.info(
                    "picture failed",
                    extra={"shard": job.id, "item": failure["item"], "stage": failure["stage"], "error": reason},
                )

        try:
            self.executor.run(self.task, todo, done)
        finally:
            progress.close()

    def _show(self, name: str, shards: Sequence[Shard], committed: Mapping[str, Commit]) -> None:
        """Say in progress.json that a pass begins; the coverage pass counts before it is planned."""
        planned = sum(len(shard.items) for shard in shards)
        later = -(-max(self.config.images - planned, 0) // self.config.shard_size) if name == "label" else 0
        failures = [commit.info["failures"] for commit in committed.values() if commit.info["failures"]]
        done = sum(commit.info["images"] for commit in committed.values())
        self.state.enter(
            name,
            {
                "done": len(committed),
                "total": len({*committed, *(shard.id for shard in shards)}) + later,
                "with_failures": len(failures),
            },
            {"done": done, "total": self.config.images, "failed": 0 if name == "retry" else sum(failures)},
        )

    def _check_failures(self, total: int) -> None:
        failing = open_failures(self.store)
        if len(failing) > self.config.max_failed_share * total:
            rows = self.store.read_table("failures").to_pylist()
            first = next(row for row in rows if row["item"] == failing[0])
            raise GazetteerError(
                f"{len(failing)} of {total} pictures could not be processed, more than max_failed_share="
                f"{self.config.max_failed_share} allows; the first, {failing[0]}, failed at {first['stage']}: "
                f"{first['error']}: {first['message']} (the others are in failures/; --retry-failed tries them again)."
            )

    def finish(self) -> dict[str, Any]:
        """Reduce the committed shards to the final tables, write the manifest and mark the run complete."""
        start = time.monotonic()
        print("reduce: evidence -> labels", flush=True, file=sys.stderr)
        self.state.reduce()
        tables = reduce_tables(
            images=self.store.read_table("images", columns=["image_id", "split", "width", "height", "asked"]),
            codes=all_codes(self.store),
            grids=set(code_grids(self.store).values()),
            segments=self.store.read_table("segments"),
            evidence=sum_evidence(self.store.read_table("evidence", [shard]) for shard in self.store.shard_ids()),
            feature_counts=feature_counts(self.config),
            model=self.config.name,
            config=self.config.labels,
            images_wanted=self.config.coverage.wanted,
        )
        written = {n: self.store.write_final(n, table, self.provenance) for n, table in sorted(tables.items())}
        commits = self.store.committed()
        seconds: dict[str, float] = {"reduce": time.monotonic() - start}
        for commit in commits.values():
            for stage, spent in commit.info["seconds"].items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        manifest = {
            "shards": sorted(commits),
            "tables": written,
            "images": sum(c.info["images"] for c in commits.values()),
            "segments": sum(c.info["segments"] for c in commits.values()),
            "replayed": sum(c.info.get("replayed", 0) for c in commits.values()),
            "failing": open_failures(self.store),
            "seconds": {stage: round(spent, 1) for stage, spent in sorted(seconds.items())},
            "wall_seconds": round(time.monotonic() - self.started, 1),
            "explained_variance": self.explained,
            "fingerprint": self.marks,
        }
        self.store.finish(manifest)
        return manifest


def feature_counts(config: RunConfig) -> dict[Site, int]:
    """Features per site, dead ones included, from the autoencoders' own configurations."""
    return {s: int(read_config(Path(config.saes) / s.slug)["n"]) for s in config.generation.sites}


def join_results(parts: Sequence[ShardResult]) -> ShardResult:
    """The result of a shard from the results of consecutive parts of it."""
    tables = {
        name: pa.concat_tables([part.tables[name] for part in parts]) for name in parts[0].tables if name != "evidence"
    }
    tables["evidence"] = sum_evidence([part.tables["evidence"] for part in parts])
    seconds = {k: sum(p.seconds.get(k, 0.0) for p in parts) for k in {k for p in parts for k in p.seconds}}
    counts = {k: sum(p.counts.get(k, 0) for p in parts) for k in {k for p in parts for k in p.counts}}
    explained = next((part.explained for part in parts if part.explained), {})
    return ShardResult(tables, seconds, counts, explained)


def lost_item(item: Item, lost: Lost) -> ShardResult:
    """The result for an item that kept taking its worker down: one row of `failures`."""
    stage = "worker" if lost.stages == STAGES else "+".join(lost.stages)
    row = {
        "stage": stage,
        "item": item.image_id,
        "error": lost.error,
        "message": lost.message,
        "attempts": lost.attempts,
    }
    tables = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}
    tables["failures"] = pa.Table.from_pylist([row], schema=FAILURES)
    return ShardResult(tables, {}, {"images": 0, "segments": 0, "failures": 1})
