"""The labelling job: plan, carry out what is missing, draw more pictures where features lack them, reduce, finish."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import GazetteerError
from data.prompts import Item, Shard
from data.provenance import provenance
from data.schemas import FAILURES, PART_TABLES
from data.sites import Site
from data.store import RunFolder
from jobs import plan
from jobs.config import RunConfig
from jobs.execute import Executor
from jobs.fingerprint import fingerprint, portable_config
from jobs.progress import Progress
from jobs.work import Job, Task
from labeling.evidence import sum_evidence
from labeling.reduce import reduce_tables
from labeling.stages import ShardResult, StageConfig, Stages
from sae.checkpoint import read_config

log = logging.getLogger(__name__)


def label(config: RunConfig, out: str | Path, *, retry_failed: bool = False) -> dict[str, Any]:
    """Carry a labelling run to its end, from wherever it stands.

    A finished run costs nothing: neither Ray nor a model is started.

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
    store.open_or_create(marks)
    with store.lock():
        committed = store.committed()
        manifest = store.read_json("manifest.json") if store.is_complete() else None
        retry = retry_failed and bool(open_failures(store))
        if manifest is not None and not retry and set(manifest["shards"]) == set(committed):
            return manifest
        store.clear_success()
        with _Run(config, store, marks) as run:
            run.carry_out(pool, retry_failed)
            return run.finish()


def open_failures(store: RunFolder) -> list[str]:
    """Image ids that failed and have no picture from a later try, sorted."""
    failed = set(store.read_table("failures", columns=["item"])["item"].to_pylist())
    return sorted(failed - set(store.read_table("images", columns=["image_id"])["image_id"].to_pylist()))


class _Run:
    """One process's work on a run; starts its executor only when there is something to do."""

    def __init__(self, config: RunConfig, store: RunFolder, marks: dict[str, Any]) -> None:
        self.config, self.store, self.marks = config, store, marks
        self.provenance = provenance(marks, portable_config(config))
        self.pictures = plan.picture_digest(marks)
        self.started = time.monotonic()
        self.executor = Executor(config)
        self.task = Task(partial(Stages, config.stages), join_results, partial(lost_item, config.stages))

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()

    def carry_out(self, pool: Sequence[str], retry_failed: bool) -> None:
        """Do every shard of every pass that is not committed yet."""
        total = self.config.images
        shards = plan.read_pass(self.store, "plan-1") or plan.write_pass(
            self.store, "plan-1", plan.first_pass(pool, self.config, self.pictures), self.config.shard_size
        )
        self._do(shards, "label", total)
        more = plan.read_pass(self.store, "plan-2")
        if more is None:
            planned = [item for shard in shards for item in shard.items]
            items = plan.coverage_pass(pool, planned, self.store, self.config, self.pictures)
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
        progress = Progress(name, total, before, publish=partial(self.store.write_json, "progress.json"))

        def done(job: Job, result: ShardResult) -> None:
            info = {**result.counts, "seconds": {k: round(v, 3) for k, v in result.seconds.items()}}
            self.store.commit_shard(job.id, result.tables, info, self.provenance)
            progress.add(result.counts["images"], result.counts["failures"])

        try:
            self.executor.run(self.task, todo, done)
        finally:
            progress.close()

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
        tables = reduce_tables(
            images=self.store.read_table("images", columns=["image_id", "split", "width", "height", "asked"]),
            codes=self.store.read_table("codes"),
            segments=self.store.read_table("segments"),
            evidence=sum_evidence([self.store.read_table("evidence")]),
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
            "failing": open_failures(self.store),
            "seconds": {stage: round(spent, 1) for stage, spent in sorted(seconds.items())},
            "wall_seconds": round(time.monotonic() - self.started, 1),
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
    counts = {k: sum(p.counts[k] for p in parts) for k in parts[0].counts}
    return ShardResult(tables, seconds, counts)


def lost_item(config: StageConfig, item: Item, message: str, attempts: int) -> ShardResult:
    """The result for an item that kept taking its worker down: one row of `failures`."""
    row = {"stage": "worker", "item": item.image_id, "error": "WorkerDied", "message": message, "attempts": attempts}
    tables = {name: schema.empty_table() for name, schema in PART_TABLES.items() if name != "effects"}
    tables["failures"] = pa.Table.from_pylist([row], schema=FAILURES)
    return ShardResult(tables, {}, {"images": 0, "segments": 0, "failures": 1})
