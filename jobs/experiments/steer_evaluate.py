"""`gazetteer steer evaluate`: carry out the trials of an evaluation of edits, record them, resume where it stopped."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.core.importing import with_state
from gazetteer.data.core.settings import Effect
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.classifier import load_classifier
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.inputs.prompts import split_of
from gazetteer.data.runs.folder import RunFolder, open_finished
from gazetteer.data.tables.provenance import provenance
from gazetteer.diffusion.edit_sampler import EditSampler
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.fingerprint import marks_of, portable_config
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.task import Job, Lost, Task
from gazetteer.jobs.experiments.layout import check_config
from gazetteer.jobs.experiments.steer import windows_with_steps
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.interventions.evaluation.cases import Cases, SteerConfig
from gazetteer.labeling.interventions.evaluation.directions import (
    Directions,
    mean_directions,
    plain_directions,
    read_directions,
)
from gazetteer.labeling.interventions.evaluation.experiments import SteeringEvaluation
from gazetteer.labeling.interventions.evaluation.observer import EditObserver
from gazetteer.labeling.interventions.evaluation.trials import Trial, Trials
from gazetteer.labeling.interventions.resolve import run_sites
from gazetteer.labeling.layout.run import open_run
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.tables import load_images
from gazetteer.labeling.vocabulary.concepts import Vocabulary
from gazetteer.sae.model.checkpoint import load_site_saes

WEAKEST = 0.05
"""Lowest score of a box that enters a score map."""


class SteerWorker:
    """The models of an evaluation, in the process that uses them."""

    def __init__(self, stages: StageConfig, settings: SteerConfig, concepts: Sequence[str], seed: int) -> None:
        use_threads(stages.threads)
        saes = load_site_saes(stages.saes, stages.generation.sites, stages.model.device, signal=stages.sae_check.signal)
        # Many pictures to a call: the same trials always share one, so that their numbers repeat.
        weak = replace(stages.detector, box_threshold=min(WEAKEST, stages.detector.box_threshold), exact=False)
        generator = Generator(load_pipeline(stages.model), stages.generation)
        observer = EditObserver(
            EditSampler(generator, saes, batch_size=stages.batch_size, dtype=settings.dtype), load_detector(weak),
            load_segmenter(replace(stages.segmenter, exact=False)), concepts, stages.detector.box_threshold,
        )  # fmt: skip
        wanted = settings.classifier and settings.words
        self.trials = Trials(observer, load_classifier(settings.classifier, settings.words) if wanted else None, seed)

    def run(self, items: Sequence[Trial]) -> pa.Table:
        """Rows of TRIALS."""
        return self.trials.run(items)


def evaluate_steering(config: RunConfig, run: str, quick: bool = False, out: str | None = None) -> dict[str, Any]:
    """Measure spatial and global edits on held-out prompts with the run's own detector and segmenter.

    Args:
        out: records the trials; what is recorded there already is not done again. Default: ``RUN/steer``.

    Raises:
        InputError: not a finished run, another configuration than the run's or than that of the trials recorded, or
            a classifier that cannot be loaded, or no window holds a sampler step; one that holds none is left out.
        LockedError: another process does the same.
    """
    use_threads(config.threads)  # directions are made in this process
    folder, settings = open_finished(run), config.steer.quick() if quick else config.steer
    check_config(config, folder)
    steps = config.generation.steps
    settings = replace(settings, windows=windows_with_steps(settings.windows, steps, "steer.windows"))
    if settings.classifier and settings.words:
        load_classifier(settings.classifier, settings.words)
    vocabulary = Vocabulary(config.vocabulary)
    prompts = _heldout(folder, config)
    Cases(settings, vocabulary, prompts, config.seed)  # refuses too few prompts before anything is sampled
    fingerprint = _fingerprint(config, settings, folder, vocabulary.concepts)
    about = provenance(fingerprint, portable_config(config))
    work = (RunFolder(out) if out else folder.inside("steer")).open_or_create(fingerprint)
    build = partial(SteerWorker, config.stages, settings, vocabulary.concepts, config.seed)
    task = Task(build, pa.concat_tables, _lost)
    with work.lock(), Executor(config) as executor:

        def carry_out(groups: list[tuple[Trial, ...]]) -> pa.Table:
            jobs = [Job(digest_json([dataclasses.asdict(trial) for trial in group])[:24], group) for group in groups]
            done = work.committed(verify=True)
            todo = [job for job in jobs if job.id not in done]
            count = [len(jobs) - len(todo)]

            def finished(job: Job, table: pa.Table) -> None:
                work.commit_shard(job.id, {"trials": table}, {"trials": len(job.items)}, about)
                count[0] += 1
                print(f"steer: {count[0]} of {len(jobs)} groups of pictures", file=sys.stderr, flush=True)

            executor.run(task, todo, finished)
            return work.read_table("trials", shards=[job.id for job in jobs])

        def say(text: str) -> None:
            print(text, file=sys.stderr, flush=True)

        directions = _directions(config, folder, work, settings, say)
        result = SteeringEvaluation(
            folder, settings, vocabulary, prompts, carry_out, config.seed, say, directions
        ).run()  # fmt: skip
    return {"run": run, "quick": quick, **result}


def _fingerprint(
    config: RunConfig, settings: SteerConfig, folder: RunFolder, concepts: Sequence[str]
) -> dict[str, Any]:
    """All that trials depend on beside themselves: what was measured under another one is not gone on with."""
    fingerprint = {
        "run": folder.read_json("run.json"), "concepts": concepts, "removal": "by weight",
        "classifier": with_state(settings.classifier if settings.words else "", "steer.classifier"),
        "words": settings.words, "seed": config.seed, "batch_size": config.batch_size, "dtype": settings.dtype,
    }  # fmt: skip
    return fingerprint | marks_of(config, {Effect.SEGMENTS}, "detector", "segmenter")


def _heldout(folder: RunFolder, config: RunConfig) -> list[str]:
    """The prompts that had no part in the run's labels: of its own held-out share, and none of its other pictures."""
    share = (folder.read_json("run.json") or {}).get("heldout", config.heldout)
    chosen = set(load_images(folder, split="discovery", columns=["prompt"])["prompt"].to_pylist())
    return [p for p in read_prompts(config.prompts) if split_of(p, share) == "heldout" and p not in chosen]


def _directions(
    config: RunConfig, folder: RunFolder, work: RunFolder, settings: SteerConfig, say: Callable[[str], None]
) -> Directions | str:
    """Mean-difference directions of the run's concepts, made once for its pictures, or why they are left out."""
    if not settings.direction_images:
        return "steer.direction_images is 0"
    if config.pictures.kind:
        return "the run's pictures were given and cannot be sampled again"
    branches = sorted({"uncond" if branch == "uncond" else "cond" for branch in settings.branches})
    run = open_run(folder)
    rows = run.of_split("discovery", settings.direction_images)
    pictures = digest_json([run.image_ids[row] for row in rows])[:12]  # a retry of the run may have added some
    name = f"directions-{pictures}-{'-'.join(branches)}.json"
    if (plain := work.read_json(name)) is None:
        say(f"sampling {len(rows)} discovery pictures again")
        pipe, batch = load_pipeline(config.model), config.batch_size
        directions = mean_directions(run, pipe, config.generation, branches, settings.direction_images, batch)
        work.write_json(name, plain := plain_directions(directions))
    return read_directions(plain, run_sites(folder))


def _lost(item: Trial, lost: Lost) -> pa.Table:
    where = f"{item.case.name} at {item.stage or 'no stage'}"
    raise GazetteerError(f"A picture ({where}) ended its worker {lost.attempts} times: {lost.message}")
