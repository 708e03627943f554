"""The final tables of a run: sites as tasks on the run's own executor when there is much to do, else here and now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.data.inputs.given.config import given_setting
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.serial import run_serial
from gazetteer.jobs.executors.task import Done, Job, Lost, Task
from gazetteer.labeling.evidence.run_codes import READ_SLOTS, code_shapes, site_batches
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.decide import stuff_of
from gazetteer.labeling.rules.reduce import join_sites, join_verdicts, known_sites, require_known
from gazetteer.labeling.rules.run_reduce import (
    PictureReader,
    Pictures,
    SiteReducer,
    SiteTables,
    Stretch,
    StretchReducer,
    join_pictures,
    join_tables,
    stretches,
)

log = logging.getLogger(__name__)

PARALLEL_FROM = 20_000
"""Pictures times sites from which the work is shared out: below, starting the workers takes longer than the work."""

MASK_JOBS = 64
"""Jobs into which the masks of a large run are cut; their results are what travels, a few hundred bytes a segment."""

Run = Callable[[Task, Sequence[Job], Done], None]


def reduce_run(
    store: RunFolder,
    share_out: Run,
    pictures: int,
    feature_counts: Mapping[Site, int],
    model: str,
    config: LabelConfig,
    images_wanted: int,
) -> dict[str, pa.Table]:
    """The final tables of a run's committed shards; the same whoever does the work, and in whatever order it ends.

    Args:
        share_out: does jobs of a task (`gazetteer.jobs.executors.choose.Executor.run_alone`).
        pictures: of the committed shards.
        feature_counts, model, config, images_wanted: see `gazetteer.labeling.rules.reduce.reduce_tables`.

    Raises:
        InputError: tables that contradict each other.
        GazetteerError: a worker that keeps dying of a site.
    """
    sizes = known_sites(feature_counts)
    shapes = code_shapes(store)
    tables_of: SiteTables = {}
    if shapes:
        large = pictures * len(shapes) >= PARALLEL_FROM
        run = share_out if large else run_serial
        slots = {site: count for site, (_, count) in shapes.items()}
        places = {grid[1] for site, (grid, _) in shapes.items() if site.stream == TEXT}
        grids = frozenset(grid for site, (grid, _) in shapes.items() if site.stream != TEXT)
        if len(places) > 1:
            raise InputError(f"The text streams of {store.path} have several lengths, {sorted(places)}.")
        given = bool(given_setting(store.read_json("run.json") or {}))
        reader = PictureReader(store.path, grids, config, max(places, default=0), given)
        pictures_read = _pictures(store.shard_ids(), run, reader, MASK_JOBS if large else 1)
        _say_unknown_stuff(config.stuff, pictures_read.maps.concepts)
        reducer = SiteReducer(store.path, pictures_read, sizes, model, config, images_wanted)
        cuts = {
            site: stretches(site, require_known(site, sizes), count, len(pictures_read.maps_of(site).concepts))
            for site, count in slots.items()
        }
        wide = {site: cut for site, cut in cuts.items() if len(cut) > 1}
        tables_of.update(_in_stretches(reducer, run, wide))
        slots = {site: count for site, count in slots.items() if site not in wide}
        task = Task(partial(_itself, reducer), join_tables, _cannot_lose, pool=PoolConfig(workers=0))
        if large:  # those that take longest first
            batches = [[site] for site in sorted(slots, key=lambda site: -slots[site])]
        else:
            batches = list(site_batches(slots, READ_SLOTS))
        jobs = [Job(sites[0].slug, tuple(sites)) for sites in batches]

        def done(job: Job, tables: SiteTables) -> None:
            tables_of.update(tables)
            log.info("reduced %d of %d sites", len(tables_of), len(shapes), extra={"site": job.id})

        run(task, jobs, done)
    return join_sites(tables_of, sizes, model, images_wanted)


def _in_stretches(reducer: SiteReducer, run: Run, cuts: Mapping[Site, Sequence[Stretch]]) -> SiteTables:
    """The tables of sites that are cut by their features: every stretch is tested, then becomes rows."""
    made: dict[str, Any] = {}
    task = Task(partial(_itself, StretchReducer(reducer)), _all, _cannot_lose, pool=PoolConfig(workers=0))

    def carry_out(stretches: Sequence[Stretch]) -> None:
        run(
            task,
            [Job(stretch.slug, (stretch,)) for stretch in stretches],
            lambda job, parts: made.update({job.id: parts[0]}),
        )
        log.info("reduced %d stretches of %d sites", len(stretches), len(cuts))

    carry_out([stretch for cut in cuts.values() for stretch in cut])
    judged: list[Stretch] = []
    for site, cut in cuts.items():
        concepts = reducer.pictures.maps_of(site).concepts
        verdicts = join_verdicts(site, [made.pop(stretch.slug) for stretch in cut], concepts, reducer.config)
        judged += [replace(stretch, verdicts=verdicts.among(stretch.low, stretch.high)) for stretch in cut]
    carry_out(judged)
    tables_of: SiteTables = {}
    for site in cuts:
        tables = [made.pop(stretch.slug) for stretch in judged if stretch.site == site]
        tables_of[site] = tuple(pa.concat_tables(pieces) for pieces in zip(*tables, strict=True))
    return tables_of


def _say_unknown_stuff(words: Sequence[str], concepts: Sequence[str]) -> None:
    """Say which words of `labels.stuff` do nothing, since no picture was asked for what they name."""
    for word, concept in stuff_of(words, concepts).items():
        if concept is None:
            log.warning("labels.stuff names %r, which no picture was asked for: nothing is called stuff by it.", word)


def _all(parts: Sequence[list[Any]]) -> list[Any]:
    return [row for part in parts for row in part]


def _pictures(shards: Sequence[str], run: Run, reader: PictureReader, jobs: int) -> Pictures:
    """The pictures of every shard, read in so many jobs."""
    step = -(-len(shards) // jobs)
    cuts = [tuple(shards[at : at + step]) for at in range(0, len(shards), step)]
    pictures_of: dict[str, Pictures] = {}
    task = Task(partial(_itself, reader), join_pictures, _cannot_lose, pool=PoolConfig(workers=0))
    run(task, [Job(cut[0], cut) for cut in cuts], lambda job, pictures: pictures_of.update({job.id: pictures}))
    return join_pictures([pictures_of[cut[0]] for cut in cuts])


def _itself(worker: Any) -> Any:
    """A worker that travels ready-made."""
    return worker


def _cannot_lose(item: Any, lost: Lost) -> Any:
    name = item.slug if isinstance(item, Site | Stretch) else f"shard {item}"
    raise GazetteerError(
        f"{name} could not be reduced in {lost.attempts} attempts ({lost.error}: {lost.message}); run the same command "
        "again: what was labelled stays."
    )
