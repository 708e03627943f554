"""`gazetteer causal`: switch features on and off, record what that does, resume where it stopped."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.provenance import provenance
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.jobs.config.fingerprint import portable_config
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.task import Job, Lost, Task
from gazetteer.jobs.experiments.layout import check_config
from gazetteer.jobs.label.card import write_card
from gazetteer.labeling.evidence.run_codes import site_codes
from gazetteer.labeling.interventions.causal import CausalConfig, CausalTest, SharedPicture, Switch, load_causal_test
from gazetteer.labeling.interventions.causal_table import causal_table, summarise
from gazetteer.labeling.interventions.resolve import percentiles, run_sites
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.labeling.tables import load_features, load_images, load_labels
from gazetteer.labeling.vocabulary.concepts import Vocabulary

OFTEN = 0.25
"""An unlabelled feature is tried when it fires in at least this share of the pictures."""

LABELLED_OF = 4
"""Features are taken in turns of so many, `CausalConfig.unlabelled` of them without a label."""


class CausalWorker:
    """The models and the shared pictures, in the process that uses them."""

    def __init__(
        self, stages: StageConfig, concepts: Sequence[str], starts: Sequence[SharedPicture], config: CausalConfig
    ) -> None:
        self.test: CausalTest = load_causal_test(stages, concepts, starts, config)

    def run(self, items: Sequence[Switch]) -> pa.Table:
        """Rows of EFFECTS for these features."""
        return self.test.measure(items)


def measure_causes(config: RunConfig, run: str, features: int = 32, sites: Sequence[str] = ()) -> dict[str, Any]:
    """Switch features on and off; what is recorded in ``RUN/causal`` already is not done again.

    Writes ``RUN/causal.parquet`` (`gazetteer.data.tables.schemas.CAUSAL`) from everything recorded so far.

    Args:
        features: at most so many a site, of four three labelled ones, best first, and one without a label that fires
            often; 0 takes all.
        sites: slugs; empty takes all of the run.

    Raises:
        InputError: not a finished run, another configuration than the run's, an unknown site, or settings other than
            those that were begun with.
        LockedError: another process does the same.
    """
    folder = RunFolder(run)
    if not folder.is_complete():
        raise InputError(f"{folder.path} is not a finished run; run gazetteer label on it.")
    check_config(config, folder)
    chosen = _sites(folder, sites)
    starts = held_out_starts(folder, config.causal.images)
    concepts = asked_concepts(config, folder)
    marks = {**_settings(config.causal), "run": folder.read_json("run.json"), "concepts": concepts}
    marks |= {"starts": digest_json([dataclasses.astuple(start) for start in starts]), "batch_size": config.batch_size}
    begun = time.monotonic()
    work = folder.inside("causal").open_or_create(marks)
    about = provenance(marks, portable_config(config))
    with work.lock():
        jobs = [job for site in chosen for job in _jobs(folder, site, features, config.causal)]
        done = work.committed(verify=True)
        todo = [job for job in _in_turn(jobs) if job.id not in done]
        task = Task(partial(CausalWorker, config.stages, concepts, starts, config.causal), pa.concat_tables, _lost)
        count = [len(jobs) - len(todo)]

        def finished(job: Job, table: pa.Table) -> None:
            site = job.items[0].site.slug
            work.commit_shard(job.id, {"effects": table}, {"site": site, "features": len(job.items)}, about)
            count[0] += 1
            print(f"causal: {count[0]} of {len(jobs)} groups of features", file=sys.stderr, flush=True)

        with Executor(config) as executor:
            executor.run(task, todo, finished)
        labels = load_labels(folder, kind=SPATIAL_KINDS, columns=[*SITE_COLUMNS, "feature", "concept"])
        table = causal_table(work.read_table("effects"), labels, concepts)
        written = folder.write_final("causal", table, about)
        write_card(folder)
    return {
        "run": run, "table": f"{folder.path.rstrip('/')}/causal.parquet", "rows": written["rows"],
        "images": len(starts), "groups_done_now": len(todo), **summarise(table),
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def print_causes(result: dict[str, Any]) -> None:
    """The counts as text."""
    print(
        f"{result['features']} features on {result['images']} pictures: of {result['labels']} labels "
        f"{result['confirmed']} confirmed, {result['contradicted']} contradicted, {result['no_effect']} without effect"
    )
    print(
        f"{result['effect_features']} features make something appear that is not their label "
        f"({result['effect_without_label']} pairs), {result['effect_features_unlabelled']} of them have none; "
        f"of all pairs without label {result['other_pairs_rising'] or 0:.1%} rise"
    )
    print(f"{result['rows']} rows in {result['table']}")


def _settings(config: CausalConfig) -> dict[str, Any]:
    """What changes the numbers of one feature."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in ("unlabelled",)}


def _sites(folder: RunFolder, slugs: Sequence[str]) -> list[Site]:
    known = {site.slug: site for site in run_sites(folder)}
    unknown = [slug for slug in slugs if slug not in known]
    if unknown:
        raise InputError(f"{folder.path} has no site {unknown[0]}; it has {', '.join(sorted(known))}.")
    return [known[slug] for slug in dict.fromkeys(slugs)] or list(known.values())


def held_out_starts(folder: RunFolder, images: int) -> tuple[SharedPicture, ...]:
    """The first `images` held-out pictures of a run by id; InputError when there are fewer."""
    rows = load_images(folder, split="heldout", columns=["image_id", "prompt", "seed"]).to_pylist()
    rows.sort(key=lambda row: row["image_id"])
    if len(rows) < images:
        raise InputError(f"{folder.path} has {len(rows)} held-out pictures; causal.images asks for {images}.")
    return tuple(SharedPicture(row["image_id"], row["prompt"], row["seed"]) for row in rows[:images])


def asked_concepts(config: RunConfig, folder: RunFolder) -> tuple[str, ...]:
    """The concepts whose area and presence are watched, sorted: those listed, or else those that label a feature."""
    asked = (
        Vocabulary(config.vocabulary).concepts
        or load_labels(folder, kind=SPATIAL_KINDS, columns=["concept"])["concept"].to_pylist()
    )
    return tuple(sorted(set(asked)))


def _jobs(folder: RunFolder, site: Site, most: int, config: CausalConfig) -> list[Job]:
    """The groups of features to try at a site; a longer list begins with the shorter one's groups."""
    numbers = features_to_try(folder, site, config.unlabelled)[: most or None]
    scales = percentiles(site_codes(folder, site), numbers) if numbers else ()
    switches = [Switch(site, f, scale) for f, scale in zip(numbers, scales, strict=True)]
    groups = [switches[i : i + config.chunk] for i in range(0, len(switches), config.chunk)]
    return [Job(digest_json([site.slug, [[s.feature, s.scale] for s in group]])[:24], tuple(group)) for group in groups]


def features_to_try(folder: RunFolder, site: Site, unlabelled: int) -> list[int]:
    """Labelled features of a site, best first, in turns with `unlabelled` others a round that fire often."""
    columns = ["feature", "images", "density", "labels", "best_dataset_iou"]
    rows = load_features(folder, **site.columns(), columns=columns).to_pylist()
    pictures = load_images(folder, columns=["image_id"]).num_rows
    named = sorted((r for r in rows if r["labels"]), key=lambda r: (-(r["best_dataset_iou"] or 0.0), r["feature"]))
    often = [r for r in rows if not r["labels"] and r["images"] >= OFTEN * pictures]
    silent = sorted(often, key=lambda r: (-r["density"], r["feature"]))
    return list(_turns([r["feature"] for r in named], [r["feature"] for r in silent], unlabelled))


def _turns(named: list[int], silent: list[int], unlabelled: int) -> Iterator[int]:
    while named or silent:
        for queue, count in ((named, LABELLED_OF - unlabelled), (silent, unlabelled)):
            # When one kind is used up the other goes on alone.
            take = count if named and silent else LABELLED_OF
            yield from queue[:take]
            del queue[:take]


def _in_turn(jobs: Sequence[Job]) -> list[Job]:
    """The groups of all sites in turn, so that an interrupted pass has seen something of each."""
    by_site: dict[Site, list[Job]] = {}
    for job in jobs:
        by_site.setdefault(job.items[0].site, []).append(job)
    rounds = int(np.max([len(group) for group in by_site.values()], initial=0))
    return [group[i] for i in range(rounds) for group in by_site.values() if i < len(group)]


def _lost(item: Switch, lost: Lost) -> pa.Table:
    raise GazetteerError(
        f"Feature {item.feature} of {item.site.slug} ended its worker {lost.attempts} times: {lost.message}"
    )
