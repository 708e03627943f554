"""`gazetteer causal`: switch features on beside random ones, record what that does, resume where it stopped."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gazetteer.data.core.digests import digest_json
from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.settings import Effect
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.inputs.edits import WINDOWS
from gazetteer.data.tables.provenance import provenance
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.diffusion.schedule import has_step, no_step
from gazetteer.jobs.config.fingerprint import marks_of, portable_config
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.jobs.executors.choose import Executor
from gazetteer.jobs.executors.task import Job, Lost, Task
from gazetteer.jobs.experiments.causal.choose import (
    LABEL_COLUMNS,
    asked_concepts,
    features_to_try,
    finished_run,
    label_of,
    named_sites,
    pictures_able,
    starts_of,
    switch_of,
)
from gazetteer.jobs.experiments.causal.place import open_place
from gazetteer.jobs.experiments.causal.sweep import setting_of
from gazetteer.jobs.label.beside import labels_of, still_of
from gazetteer.jobs.label.card import write_card
from gazetteer.labeling.evidence.run_codes import site_codes
from gazetteer.labeling.evidence.site_codes import site_of_row
from gazetteer.labeling.interventions.causal import CausalConfig, CausalTest, SharedPicture, Switch, load_causal_test
from gazetteer.labeling.interventions.causal_power import ALPHA, images_needed
from gazetteer.labeling.interventions.causal_table import causal_table, summarise
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.labeling.tables import load_labels

POOL = 4
"""Held-out pictures to choose from, and at most to try a feature on, times those that suffice without noise."""


class CausalWorker:
    """The models and the shared pictures, in the process that uses them."""

    def __init__(
        self, stages: StageConfig, concepts: Sequence[str], starts: Sequence[SharedPicture], config: CausalConfig
    ) -> None:
        self.test: CausalTest = load_causal_test(stages, concepts, starts, config)

    def run(self, items: Sequence[Switch]) -> pa.Table:
        """Rows of EFFECTS for these features."""
        return self.test.measure(items)


def measure_causes(
    config: RunConfig, run: str, features: int = 32, sites: Sequence[str] = (), out: str | None = None,
    replace: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Switch features on beside random ones; what is recorded in ``RUN/causal`` already is not done again.

    Pictures come in rounds: after each, features whose labels are all sure, or would have been with the power that is
    asked for, are done. Writes ``RUN/causal.parquet`` (`gazetteer.data.tables.schemas.CAUSAL`) from all there is.

    Args:
        features: at most so many a site, of four three labelled ones, best first, and one without a label that fires
            often; 0 takes all.
        sites: slugs; empty takes all of the run.
        out: a folder that takes the record and the table instead of the run, whose own pass stays as it is.
        replace: where a pass with other settings is recorded, remove that and begin anew.

    Raises:
        InputError: not a finished run, another configuration than the run's, an unknown site, too few pictures,
            a window without a sampler step, settings other than those that were begun with, or labels that became
            others meanwhile.
        LockedError: another process does the same, or holds the run.
    """
    begun = time.monotonic()
    chosen = named_sites(finished_run(config, run), sites)
    with CausalPass(config, run, out, replace) as causal:
        switches = [switch for site in chosen for switch in causal.switches(site, features)]
        done = causal.rounds(switches)
        labels = load_labels(causal.folder, kind=SPATIAL_KINDS, columns=LABEL_COLUMNS)
        table = causal.table(labels)
        with still_of(causal.folder, causal.labels, "causal"):
            target = causal.work if out else causal.folder
            written = target.write_final("causal", table, causal.of_table)
            if not out:
                write_card(causal.folder)
    return {
        "run": run, "table": f"{target.path.rstrip('/')}/causal.parquet", "rows": written["rows"],
        "images": causal.images, "images_needed": images_needed(config.causal.power, config.causal.share),
        "images_used": int(sum(table.group_by([*SITE_COLUMNS, "feature"]).aggregate(
            [("causal_images", "max")])["causal_images_max"].to_pylist())),
        "setting": setting_of(config.causal), "alpha": ALPHA,
        "groups_done_now": done, **summarise(table), "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def print_causes(result: dict[str, Any]) -> None:
    """The counts as text."""
    print(
        f"{result['features']} features on at most {result['images']} pictures: of {result['labels']} labels "
        f"{result['confirmed']} confirmed, {result['contradicted']} contradicted, "
        f"{result['no_effect']} without effect, {result['undecided']} undecided for lack of power"
    )
    if result["power"] is not None:
        print(f"power: a rise in the asked share of pictures would have been found in {result['power']:.0%} of labels")
    print(
        f"{result['effect_features']} features make something appear that is not their label "
        f"({result['effect_without_label']} pairs), {result['effect_features_unlabelled']} of them have none"
    )
    shares = (("label", result["labels_rising"]), ("other pair", result["other_pairs_rising"]))
    told = [f"no {name} was tried" if share is None else f"{share:.1%} of {name}s" for name, share in shares]
    print(f"rising with p of at most {ALPHA:g}: {', '.join(told)}")
    print(f"{result['rows']} rows in {result['table']}")


class CausalPass:
    """One process's work on a pass: which features on which pictures, round after round, recorded as it goes."""

    def __init__(self, config: RunConfig, run: str, out: str | None = None, replace: bool = False) -> None:
        self.config, self.folder = config, finished_run(config, run)
        window, steps = WINDOWS[config.causal.window], config.generation.steps
        if not has_step(window, steps):
            raise InputError(f"causal.window is {config.causal.window}, but {no_step(window, steps)}.")
        self.labels = labels_of(self.folder)
        self.concepts = asked_concepts(config, self.folder)
        needed = images_needed(config.causal.power, config.causal.share)
        every = starts_of(self.folder, "heldout")
        if config.pictures.kind:
            print(
                "causes: the run's pictures were given; others are drawn from their captions, and which of those can "
                "show a concept is told by the given ones",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        if not every:
            raise InputError(
                f"{self.folder.path} has no held-out pictures, on which features are tried (config key heldout)."
            )
        # A rise is told from what pictures differ by anyway, and at a p that follows from how many labels are tried: so
        # a feature is done when its power is there (`_open`), which may take several times as many.
        self.images, self.needed = config.causal.images or min(POOL * needed, len(every)), needed
        if self.images > len(every):
            raise InputError(
                f"{self.folder.path} has {len(every)} held-out pictures; causal.images asks for {self.images}."
            )
        self.starts = every[: max(self.images, POOL * min(self.images, needed))]
        self.able = pictures_able(self.folder, self.starts)
        self.fingerprint = {
            **_settings(config.causal),
            "run": self.folder.read_json("run.json"),
            "concepts": self.concepts,
        }
        self.fingerprint |= {"images": self.images, "batch_size": config.batch_size}
        self.fingerprint |= marks_of(config, {Effect.SEGMENTS}, "detector", "segmenter")
        self.fingerprint |= {"starts": digest_json([dataclasses.astuple(start) for start in self.starts])}
        self.work = open_place(self.folder, out, self.fingerprint, replace)
        self.about = provenance(self.fingerprint, portable_config(config))
        # The table is of the labels as they are now, which may have been made again since the run was started.
        self.of_table = provenance({**self.fingerprint, "run": self.labels[0]}, portable_config(config))

    def __enter__(self) -> CausalPass:
        self._lock = self.work.lock()
        self._lock.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def switches(self, site: Site, most: int) -> list[Switch]:
        """The features to try at a site, each with its pictures; a longer list begins with the shorter one."""
        numbers = features_to_try(self.folder, site, self.config.causal.unlabelled, self.config.causal.pick)
        numbers = numbers[: most or None]
        if not numbers:
            return []
        codes, named = site_codes(self.folder, site), label_of(self.folder, site)
        switches = []
        for number in numbers:
            able = self.able.get(named.get(number, ""), ())
            rest = [i for i in range(len(self.starts)) if i not in set(able)]
            # One without a label never is decided: no power is asked of it.
            many = self.images if number in named else min(self.images, self.needed)
            switches.append(replace(switch_of(codes, number), pictures=tuple([*able, *rest][:many])))
        return switches

    def rounds(self, switches: Sequence[Switch]) -> int:
        """Do every round of pictures of every feature that is not decided before; returns the groups done now."""
        config, size = self.config, self.config.causal.round
        build = partial(CausalWorker, config.stages, self.concepts, self.starts, config.causal)
        task = Task(build, pa.concat_tables, _lost)
        labels, done_now, left = load_labels(self.folder, kind=SPATIAL_KINDS, columns=LABEL_COLUMNS), 0, list(switches)
        total = -(-self.images // size)
        with Executor(config) as executor:
            for number in range(total):
                jobs = _groups(left, number * size, size, config.causal.chunk)
                committed = self.work.committed(verify=number == 0)
                todo = [job for job in jobs if job.id not in committed]
                watch = _Countdown(f"round {number + 1} of {total}", len(todo), len(jobs) * (total - number - 1))
                executor.run(task, todo, partial(self._finished, watch))
                done_now += len(todo)
                if number + 1 < total:
                    left = self._open(left, labels)
                if not left:
                    break
        return done_now

    def _finished(self, watch: _Countdown, job: Job, table: pa.Table) -> None:
        info = {"site": job.items[0].site.slug, "features": len(job.items)}
        self.work.commit_shard(job.id, {"effects": table}, info, self.about)
        watch.one_more()

    def table(self, labels: pa.Table) -> pa.Table:
        """What all that is recorded comes to."""
        causal = self.config.causal
        # Captions of given pictures may be alike, or empty: each stands for itself.
        prompts = None if self.config.pictures.kind else {start.image_id: start.prompt for start in self.starts}
        return causal_table(self.work.read_table("effects"), labels, self.concepts, causal.power, causal.share, prompts)

    def _open(self, switches: Sequence[Switch], labels: pa.Table) -> list[Switch]:
        """The features with a label that has not had the power, and those without any label.

        Never by p: whoever looks again and again, and stops when it is small, finds it small too often. The power
        follows from how large differences are, not from their signs.
        """
        open_pairs: dict[tuple[str, int], bool] = {}
        for row in self.table(labels).to_pylist():
            if row["labelled"]:
                key = site_of_row(row).slug, row["feature"]
                weak = row["causal_power"] < self.config.causal.power
                open_pairs[key] = open_pairs.get(key, False) or weak
        return [switch for switch in switches if open_pairs.get((switch.site.slug, switch.feature), True)]


class _Countdown:
    """Says after every group of features how far a round is, and how long the pass takes at most."""

    def __init__(self, name: str, groups: int, later: int) -> None:
        """`later`: groups of the rounds to come, if no feature is decided before."""
        self.name, self.groups, self.later, self.done, self.begun = name, groups, later, 0, time.monotonic()

    def one_more(self) -> None:
        """One more group is done."""
        self.done += 1
        each = (time.monotonic() - self.begun) / self.done
        minutes = each * (self.groups - self.done + self.later) / 60
        print(
            f"causal: {self.name}, {self.done} of {self.groups} groups of features, at most {minutes:.0f} min left",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _settings(config: CausalConfig) -> dict[str, Any]:
    """What changes the numbers of one feature."""
    others = ("unlabelled", "images", "windows", "strengths", "places", "pick")
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in others}


def _groups(switches: Sequence[Switch], first: int, size: int, chunk: int) -> list[Job]:
    """The features of each site in groups, on their pictures from `first` on, the sites in turn."""
    jobs, by_site = [], dict[Site, list[Switch]]()
    for switch in switches:
        part = replace(switch, pictures=switch.pictures[first : first + size])
        if part.pictures:
            by_site.setdefault(switch.site, []).append(part)
    for site, own in by_site.items():
        for start in range(0, len(own), chunk):
            group = tuple(own[start : start + chunk])
            about = [[s.feature, s.scale, list(s.pictures)] for s in group]
            jobs.append(Job(digest_json([site.slug, about])[:24], group))
    return _in_turn(jobs)


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
