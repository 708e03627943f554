"""One process's work on a labelling run: passes of shards through the executor, then the final tables."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.inputs.given.open import open_given
from gazetteer.data.inputs.prompts import Shard
from gazetteer.data.runs.folder import Commit, RunFolder
from gazetteer.data.tables.provenance import provenance
from gazetteer.jobs.config.fingerprint import picture_digest, portable_config
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.ray.metrics import RunMetrics
from gazetteer.jobs.executors.sources import GROUPS, checking, same_copies, sources
from gazetteer.jobs.executors.task import Job, Task
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.label.beside import put_aside
from gazetteer.jobs.label.card import write_card
from gazetteer.jobs.label.failures import Tally, open_failures
from gazetteer.jobs.label.preflight import space_problem
from gazetteer.jobs.label.progress.bars import Progress
from gazetteer.jobs.label.progress.run_state import RunState
from gazetteer.jobs.label.reduce import reduce_run
from gazetteer.jobs.label.results import Finished, feature_counts, join_results, lost_item, publish_shard, totals
from gazetteer.labeling.pipeline.config import STAGES
from gazetteer.labeling.pipeline.given_names import notes_of
from gazetteer.labeling.pipeline.sae_check import report
from gazetteer.labeling.pipeline.stages import Stages
from gazetteer.sae.model.checkpoint import other_model
from gazetteer.sae.model.threshold import reading_notes

log = logging.getLogger(__name__)

FINDERS = ("detector", "segmenter")
"""What given pictures need none of."""


class LabelRun:
    """One process's work on a run; starts its executor only when there is something to do."""

    def __init__(
        self, config: RunConfig, store: RunFolder, fingerprint: dict[str, Any], reuse: str | Path | None = None
    ) -> None:
        self.config, self.store, self.fingerprint = config, store, fingerprint
        self.provenance = provenance(fingerprint, portable_config(config))
        self.pictures = picture_digest(fingerprint)
        self.started = time.monotonic()
        self.features = feature_counts(config)
        self.notes = reading_notes(config.saes, config.generation.sites)
        for slug, note in self.notes.items():
            print(f"the SAE of {slug}: {note}", flush=True, file=sys.stderr)
        model = fingerprint["model.path"]
        if note := other_model(config.saes, config.generation.sites, config.model.path, model):
            log.warning("%s", note)
        self.tally = Tally(store, config.images, config.max_failed_fraction)
        self.explained = self.loading_said = False
        self.noted: set[str] = set()
        self.executor = Executor(config, self._last_words)
        build = partial(Stages, config.stages, reuse=str(reuse or ""), run=store.path)
        unused = FINDERS if config.pictures.kind else ()
        loaded = sources(config, fingerprint, [group for group in GROUPS if group not in unused])
        checked = checking(build, same_copies(loaded, store))
        # Shards stay those of the settings that the run was started with; later label settings are of the tables alone.
        begun = provenance(store.read_json("run.json"), portable_config(config))
        seal = partial(publish_shard, store.workshop(begun))
        self.task = Task(checked, join_results, lost_item, STAGES, config.limits.picture_seconds, seal)
        self.state = RunState(partial(store.write_json, "progress.json"))
        self.metrics = RunMetrics(store.path.rstrip("/").rpartition("/")[2])

    def __enter__(self) -> LabelRun:
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
        """Do every shard of every pass that is not committed yet.

        Raises:
            GazetteerError: too many pictures failed; as soon as that is certain.
        """
        shards = plan.read_pass(self.store, plan.FIRST) or plan.write_pass(
            self.store, plan.FIRST, plan.first_pass(pool, self.config, self.pictures), self.config.shard_size
        )
        if retry_failed and self.tally.hopeless:  # first of all, for nothing else may go on before
            self._retry([*shards, *(plan.read_pass(self.store, plan.COVERAGE) or ())], True)
            self.tally, retry_failed = Tally(self.store, self.config.images, self.config.max_failed_fraction), False
        self.tally.check()
        self._do(shards, "label")
        more = plan.read_pass(self.store, plan.COVERAGE)
        if more is None:
            items = plan.coverage_pass(pool, shards, self.store, self.config, self.pictures)
            more = plan.write_pass(self.store, plan.COVERAGE, items, self.config.shard_size)
        self._do(more, "cover")
        self._retry([*shards, *more], retry_failed)
        self.tally.settle()

    def _retry(self, shards: Sequence[Shard], wanted: bool) -> None:
        """Finish retries begun earlier, then, when wanted, one more for exactly what still fails."""
        number = 1
        while (begun := plan.read_pass(self.store, f"retry-{number}")) is not None:
            self._do(plan.without_made(self.store, f"retry-{number}", begun), "retry")
            number += 1
        failing = set(open_failures(self.store)) if wanted else set()
        items = [item for shard in shards for item in shard.items if item.image_id in failing]
        if items:
            self._do(plan.write_pass(self.store, f"retry-{number}", items, self.config.shard_size), "retry")

    def _do(self, shards: Sequence[Shard], name: str) -> None:
        committed = self.store.committed()
        known = {*committed, *(shard for group in self.store.grouped().values() for shard in group)}
        todo = [Job(shard.id, shard.items) for shard in shards if shard.id not in known]
        if not todo:
            return
        pictures = sum(len(job.items) for job in todo)
        problem = space_problem(self.store, committed.values(), pictures)
        if problem is not None:
            raise GazetteerError(problem)
        retry = name == "retry"
        before = 0 if retry else sum(commit.info["images"] for commit in committed.values())
        self._show(name, shards, committed)
        self._say_what_is_loaded()
        with Progress(name, pictures if retry else self.config.images, before) as progress:

            def done(job: Job, result: Finished) -> None:
                self._keep(job, result, name)
                progress.add(result.counts["images"], result.counts["failures"])
                if not retry:
                    self.tally.add(result.counts["images"], result.counts["failures"])

            self.executor.run(self.task, todo, done)

    def _say_what_is_loaded(self) -> None:
        """Once: the models that workers are about to load, which may take them a while."""
        if self.loading_said:
            return
        self.loading_said, config = True, self.config
        models = {"model": config.model.path, "autoencoders": f"{len(self.features)} of {config.saes}"}
        if not config.pictures.kind:
            models |= {"detector": config.detector.path, "segmenter": config.segmenter.path}
        said = ", ".join(f"{what} {path}" for what, path in models.items() if path)
        print(f"loading {said} (on {config.model.device})", file=sys.stderr, flush=True)
        if config.pictures.kind:
            unheard = "prompts, vocabulary, detector and segmenter are not used"
            print(f"pictures and masks are given: {unheard}; pictures.concepts chooses categories", file=sys.stderr)
            for note in notes_of(open_given(config.pictures, config.seed)):
                print(f"pictures.{config.pictures.kind}: {note}", file=sys.stderr)

    def _keep(self, job: Job, result: Finished, name: str) -> None:
        """Record a shard that was published, and say so where machines listen."""
        info = {**result.counts, "seconds": {k: round(v, 3) for k, v in result.seconds.items()}}
        if result.explained:
            info["explained_variance"] = result.explained
            if not self.explained:
                self.explained = True
                print(f"{name}: {report(result.explained)}", flush=True, file=sys.stderr)
        self.store.record_parts(result.parts, info)
        self.state.shard(result.counts["images"], result.counts["failures"])
        self.metrics.shard(result.counts, result.seconds, self.state.seconds_left)
        log.info("shard committed", extra={"shard": job.id, "stage": name, **info})
        if self.config.executor == "ray":  # what another process warned of; this one's own was said
            for note in [note for note in result.notes if note not in self.noted]:
                self.noted.add(note)
                log.warning("%s", note)
        for failure in result.failures:
            reason = f"{failure['error']}: {failure['message']}"
            extra = {"shard": job.id, "item": failure["item"], "stage": failure["stage"], "error": reason}
            log.info("picture failed", extra=extra)

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

    def finish(self) -> dict[str, Any]:
        """Reduce the committed shards to the final tables, write the manifest and mark the run complete."""
        start = time.monotonic()
        print("reduce: evidence -> labels", flush=True, file=sys.stderr)
        self.state.reduce()
        pictures = sum(commit.info["images"] for commit in self.store.committed().values())
        tables = reduce_run(
            self.store, self.executor.run_alone, pictures, self.features, self.config.name, self.config.labels,
            self.config.coverage.wanted,
        )  # fmt: skip
        put_aside(self.store, tables, self.provenance)
        written = {n: self.store.write_final(n, table, self.provenance) for n, table in sorted(tables.items())}
        reduced = time.monotonic() - start
        commits = self.store.committed()
        sums = totals(commits)
        if sums["features_cut"]:
            cut = f"{sums['features_cut']} active features of cells found no slot in the codes"
            print(f"{cut}: the weakest of cells with more than an SAE's k or max_k", flush=True, file=sys.stderr)
        seconds = {"reduce": reduced, **sums["seconds"]}
        manifest = {
            **sums,
            "shards": sorted(commits),
            "tables": written,
            "failing": open_failures(self.store),
            "seconds": {stage: round(spent, 1) for stage, spent in sorted(seconds.items())},
            "wall_seconds": round(time.monotonic() - self.started, 1),
            "saes_read": self.notes,
            "fingerprint": self.fingerprint,
        }
        self.store.finish(manifest)
        write_card(self.store)
        return manifest
