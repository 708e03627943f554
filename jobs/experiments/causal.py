"""`gazetteer causal`: switch features on beside random ones, record what that does, resume where it stopped."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from gazetteer.labeling.evidence.site_codes import SiteCodes, site_of_row
from gazetteer.labeling.interventions.able import can_show
from gazetteer.labeling.interventions.causal import CausalConfig, CausalTest, SharedPicture, Switch, load_causal_test
from gazetteer.labeling.interventions.causal_power import ALPHA, images_needed
from gazetteer.labeling.interventions.causal_table import causal_table, summarise
from gazetteer.labeling.interventions.resolve import percentiles, run_sites
from gazetteer.labeling.pipeline.config import StageConfig
from gazetteer.labeling.tables import load_features, load_images, load_labels, load_segments
from gazetteer.labeling.vocabulary.concepts import Vocabulary

OFTEN = 0.25
"""An unlabelled feature is tried when it fires in at least this share of the pictures."""

LABELLED_OF = 4
"""Features are taken in turns of so many, `CausalConfig.unlabelled` of them without a label."""

SURE = 0.001
"""p of all of a feature's labels at which no more pictures are asked."""

POOL = 4
"""Held-out pictures to choose from, times those that each feature is tried on."""

CENTRES = 16
"""Cells a feature that is switched in cells may stand in."""


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
    """Switch features on beside random ones; what is recorded in ``RUN/causal`` already is not done again.

    Pictures come in rounds: after each, features whose labels are all sure, or would have been with the power that is
    asked for, are done. Writes ``RUN/causal.parquet`` (`gazetteer.data.tables.schemas.CAUSAL`) from all there is.

    Args:
        features: at most so many a site, of four three labelled ones, best first, and one without a label that fires
            often; 0 takes all.
        sites: slugs; empty takes all of the run.

    Raises:
        InputError: not a finished run, another configuration than the run's, an unknown site, too few pictures, or
            settings other than those that were begun with.
        LockedError: another process does the same.
    """
    begun = time.monotonic()
    chosen = _sites(_finished(config, run), sites)
    with CausalPass(config, run) as causal:
        switches = [switch for site in chosen for switch in causal.switches(site, features)]
        done = causal.rounds(switches)
        labels = load_labels(causal.folder, kind=SPATIAL_KINDS, columns=LABEL_COLUMNS)
        table = causal.table(labels)
        written = causal.folder.write_final("causal", table, causal.about)
        write_card(causal.folder)
    return {
        "run": run, "table": f"{causal.folder.path.rstrip('/')}/causal.parquet", "rows": written["rows"],
        "images": causal.images, "images_needed": images_needed(config.causal.power, config.causal.share),
        "images_used": int(sum(table.group_by(["block", "branch", "t", "feature"]).aggregate(
            [("causal_images", "max")])["causal_images_max"].to_pylist())),
        "setting": _setting(config.causal), "alpha": ALPHA,
        "groups_done_now": done, **summarise(table), "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def sweep_causes(config: RunConfig, run: str, features: int = 8, images: int = 8) -> dict[str, Any]:
    """Compare windows, doses and places on tuning features and discovery pictures, which the pass does not use.

    Tuning features are the best labelled one of every concept, at most `features`. Returned, for every setting: the
    mean rise of the label's area over that of random features, in standard errors over features, and how many of them
    rise; the ``best`` has the most standard errors. Nothing is written.
    """
    begun = time.monotonic()
    folder = _finished(config, run)
    concepts = asked_concepts(config, folder)
    shared = _starts(folder, "discovery")[:images]
    chosen = _best_of_concepts(folder, features)
    settings = [replace(config.causal, window=w, strength=d, place=p) for w in config.causal.windows
                for d in config.causal.strengths for p in config.causal.places]  # fmt: skip
    rows, codes = [], {site: site_codes(folder, site) for site in {site for site, _, _ in chosen}}
    test = load_causal_test(config.stages, concepts, shared, config.causal)
    for setting in settings:
        test.use(setting)
        means = []
        for site, feature, concept in chosen:
            switch = _switch(codes[site], feature)
            on, random = (test.draw_and_judge(switch, state) for state in ("on", "random"))
            means.append(np.mean([a.get(concept, 0.0) - b.get(concept, 0.0) for a, b in zip(on, random, strict=True)]))
        rise, spread = (
            float(np.mean(means)),
            float(np.std(means, ddof=1) / len(means) ** 0.5) if len(means) > 1 else 0.0,
        )
        rows.append({**_setting(setting), "rise": round(rise, 4), "errors": round(rise / spread, 2) if spread else 0.0,
                     "up": int(sum(m > 0.01 for m in means)), "down": int(sum(m < -0.01 for m in means))})  # fmt: skip
        print(f"causal: {rows[-1]}", file=sys.stderr, flush=True)
    best = max(rows, key=lambda row: row["errors"])
    return {"run": run, "features": len(chosen), "images": len(shared), "sweep": rows, "best": best,
            "seconds": round(time.monotonic() - begun, 1)}  # fmt: skip


LABEL_COLUMNS = [*SITE_COLUMNS, "feature", "concept"]


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


class CausalPass:
    """One process's work on a pass: which features on which pictures, round after round, recorded as it goes."""

    def __init__(self, config: RunConfig, run: str) -> None:
        self.config, self.folder = config, _finished(config, run)
        self.concepts = asked_concepts(config, self.folder)
        needed = images_needed(config.causal.power, config.causal.share)
        every = _starts(self.folder, "heldout")
        self.images = config.causal.images or min(needed, len(every))
        if self.images > len(every):
            raise InputError(
                f"{self.folder.path} has {len(every)} held-out pictures; causal.images asks for {self.images}."
            )
        self.starts = every[: POOL * self.images]
        self.able = _able(self.folder, self.starts)
        self.fingerprint = {
            **_settings(config.causal),
            "run": self.folder.read_json("run.json"),
            "concepts": self.concepts,
        }
        self.fingerprint |= {"images": self.images, "batch_size": config.batch_size}
        self.fingerprint |= {"starts": digest_json([dataclasses.astuple(start) for start in self.starts])}
        self.work = self.folder.inside("causal").open_or_create(self.fingerprint)
        self.about = provenance(self.fingerprint, portable_config(config))

    def __enter__(self) -> CausalPass:
        self._lock = self.work.lock()
        self._lock.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def switches(self, site: Site, most: int) -> list[Switch]:
        """The features to try at a site, each with its pictures; a longer list begins with the shorter one."""
        numbers = features_to_try(self.folder, site, self.config.causal.unlabelled)[: most or None]
        if not numbers:
            return []
        codes, named = site_codes(self.folder, site), _label_of(self.folder, site)
        found = []
        for number in numbers:
            able = self.able.get(named.get(number, ""), ())
            rest = [i for i in range(len(self.starts)) if i not in set(able)]
            found.append(replace(_switch(codes, number), pictures=tuple([*able, *rest][: self.images])))
        return found

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
        return causal_table(self.work.read_table("effects"), labels, self.concepts, causal.power, causal.share)

    def _open(self, switches: Sequence[Switch], labels: pa.Table) -> list[Switch]:
        """The features with a label that is neither sure nor had the power, and those without any label."""
        open_pairs: dict[tuple[Any, ...], bool] = {}
        for row in self.table(labels).to_pylist():
            if row["labelled"]:
                key = (row["block"], row["branch"], round(row["t"], 4), row["feature"])
                unsure = row["causal_p_value"] > SURE and row["causal_power"] < self.config.causal.power
                open_pairs[key] = open_pairs.get(key, False) or unsure
        return [
            s for s in switches if open_pairs.get((s.site.block, s.site.branch, round(s.site.t, 4), s.feature), True)
        ]


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
        f"({result['effect_without_label']} pairs), {result['effect_features_unlabelled']} of them have none; "
        f"of all pairs without label {result['other_pairs_rising'] or 0:.1%} rise"
    )
    print(f"{result['rows']} rows in {result['table']}")


def print_sweep(result: dict[str, Any]) -> None:
    """What every setting came to, and the best one as settings."""
    print(f"{result['features']} tuning features on {result['images']} discovery pictures: rise over random features")
    for row in sorted(result["sweep"], key=lambda row: -row["errors"]):
        print(
            f"  {row['window']:<17}{row['strength']:>5g}  {row['place']:<11}{row['rise']:+.4f}  {row['errors']:+.2f} "
            f"standard errors, {row['up']} up, {row['down']} down"
        )
    best = result["best"]
    window, strength = f"'causal.window={best['window']}'", f"causal.strength={best['strength']:g}"
    print(f"best: --set {window} {strength} causal.place={best['place']}")


def _setting(config: CausalConfig) -> dict[str, Any]:
    return {"window": config.window, "strength": config.strength, "place": config.place}


def _settings(config: CausalConfig) -> dict[str, Any]:
    """What changes the numbers of one feature."""
    others = ("unlabelled", "images", "windows", "strengths", "places")
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in others}


def _finished(config: RunConfig, run: str) -> RunFolder:
    folder = RunFolder(run)
    if not folder.is_complete():
        raise InputError(f"{folder.path} is not a finished run; run gazetteer label on it.")
    check_config(config, folder)
    return folder


def _sites(folder: RunFolder, slugs: Sequence[str]) -> list[Site]:
    known = {site.slug: site for site in run_sites(folder)}
    unknown = [slug for slug in slugs if slug not in known]
    if unknown:
        raise InputError(f"{folder.path} has no site {unknown[0]}; it has {', '.join(sorted(known))}.")
    return [known[slug] for slug in dict.fromkeys(slugs)] or list(known.values())


def _starts(folder: RunFolder, split: str) -> tuple[SharedPicture, ...]:
    """The pictures of a split, by id (ids are digests, so these are in no order)."""
    rows = load_images(folder, split=split, columns=["image_id", "prompt", "seed"]).to_pylist()
    rows.sort(key=lambda row: row["image_id"])
    return tuple(SharedPicture(row["image_id"], row["prompt"], row["seed"]) for row in rows)


def held_out_starts(folder: RunFolder, images: int) -> tuple[SharedPicture, ...]:
    """The first `images` held-out pictures of a run by id; InputError when there are fewer."""
    every = _starts(folder, "heldout")
    if len(every) < images:
        raise InputError(f"{folder.path} has {len(every)} held-out pictures; causal.images asks for {images}.")
    return every[:images]


def _able(folder: RunFolder, starts: Sequence[SharedPicture]) -> dict[str, tuple[int, ...]]:
    """By concept, the places of the pictures that can show it."""
    images = load_images(folder, columns=["image_id", "split"]).to_pylist()
    segments = load_segments(folder, columns=["image_id", "concept"])
    row = {one["image_id"]: i for i, one in enumerate(images)}
    concepts = sorted(set(segments["concept"].to_pylist()))
    shown = np.zeros((len(images), len(concepts)), bool)
    column = {name: i for i, name in enumerate(concepts)}
    for one in segments.to_pylist():
        shown[row[one["image_id"]], column[one["concept"]]] = True
    able = can_show(shown, np.array([one["split"] == "discovery" for one in images], bool), concepts)
    place = np.array([row[start.image_id] for start in starts], np.int64)
    return {name: tuple(np.flatnonzero(able[place, i]).tolist()) for i, name in enumerate(concepts)}


def _label_of(folder: RunFolder, site: Site) -> dict[int, str]:
    """The best label of every labelled feature of a site."""
    rows = load_labels(folder, **site.columns(), kind=SPATIAL_KINDS, columns=["feature", "concept", "rank"])
    return {row["feature"]: row["concept"] for row in rows.to_pylist() if row["rank"] == 1}


def _best_of_concepts(folder: RunFolder, most: int) -> list[tuple[Site, int, str]]:
    """The feature of the cond branch that overlaps each concept best, best concepts first."""
    columns = [*LABEL_COLUMNS, "rank", "heldout_dataset_iou"]
    rows = load_labels(folder, branch="cond", kind=SPATIAL_KINDS, columns=columns).to_pylist()
    rows = [row for row in rows if row["rank"] == 1]
    if not rows:
        raise InputError(f"{folder.path} labels no feature of the cond branch; there is nothing to tune on.")
    rows.sort(key=lambda row: (-(row["heldout_dataset_iou"] or 0.0), row["feature"]))
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        best.setdefault(row["concept"], row)
    return [(site_of_row(row), row["feature"], concept) for concept, row in list(best.items())[:most]]


def _switch(codes: SiteCodes, feature: int) -> Switch:
    """A feature with its strength and the cells in which it fires most often."""
    (scale,) = percentiles(codes, (feature,))
    counts = np.bincount(codes.cell[codes.feature == feature], minlength=codes.cells)
    best = np.argsort(-counts, kind="stable")[:CENTRES]
    centres = [((c % codes.width + 0.5) / codes.width, (c // codes.width + 0.5) / codes.height)
               for c in best.tolist() if counts[c]]  # fmt: skip
    return Switch(codes.site, feature, scale, (), tuple(centres))


def asked_concepts(config: RunConfig, folder: RunFolder) -> tuple[str, ...]:
    """The concepts whose area and presence are watched, sorted: those listed, or else those that label a feature."""
    asked = (
        Vocabulary(config.vocabulary).concepts
        or load_labels(folder, kind=SPATIAL_KINDS, columns=["concept"])["concept"].to_pylist()
    )
    return tuple(sorted(set(asked)))


def _groups(switches: Sequence[Switch], first: int, size: int, chunk: int) -> list[Job]:
    """The features of each site in groups, on their pictures from `first` on, the sites in turn."""
    jobs, by_site = [], dict[Site, list[Switch]]()
    for switch in switches:
        part = replace(switch, pictures=switch.pictures[first : first + size])
        if part.pictures:
            by_site.setdefault(switch.site, []).append(part)
    for site, mine in by_site.items():
        for start in range(0, len(mine), chunk):
            group = tuple(mine[start : start + chunk])
            about = [[s.feature, s.scale, list(s.pictures)] for s in group]
            jobs.append(Job(digest_json([site.slug, about])[:24], group))
    return _in_turn(jobs)


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
