"""Memory of the coverage pass and time of the reduction, at several sizes of one run that grows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.scaling.fit import exponent, extrapolated, line
from benchmarks.scaling.memory import measured
from benchmarks.scaling.synthetic import Shapes, Synthetic
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.label import reduce as job
from gazetteer.jobs.label.shards import pass_evidence
from gazetteer.labeling.rules import run_reduce
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.coverage import choose_prompts
from gazetteer.labeling.rules.run_reduce import Stretch, stretches

CORES = 16
WHOLE = 40_000


def growing(shapes: Shapes, sizes: list[int], draw: Synthetic) -> Iterator[tuple[int, RunFolder]]:
    """A run with so many pictures, and then more: its shards are drawn and committed as they are needed."""
    with tempfile.TemporaryDirectory(prefix="gazetteer-scale-") as folder:
        run = RunFolder(folder).open_or_create({"synthetic": repr(shapes)})
        made = 0
        for size in sizes:
            while made * shapes.pictures < size:
                tables = draw.shard(made)
                info = {"images": shapes.pictures, "failures": 0, "seconds": {}}
                run.commit_shard(f"{made:06d}", tables, info, {})
                made += 1
            yield made * shapes.pictures, run


def reduction(shapes: Shapes, sizes: list[int], stretches_measured: int = 0) -> dict[str, Any]:
    """CPU seconds and memory of reducing the sites of `shapes`, one task after the other, and of what runs before.

    Sites are cut at every size into as many stretches of features as at 40,000 pictures. Stretches know nothing of one
    another, so that 18 sites on 16 cores take so many rounds of one; the masks are shared out in 64 jobs, and what
    joins them stays with the driver.

    Args:
        stretches_measured: of every site this many are tested and become rows, those between being left out, and their
            time is taken for all; 0: all of them. What a stretch costs does not follow from its features' numbers.
    """
    draw, rows = Synthetic(shapes), []
    for pictures, run in growing(shapes, sizes, draw):
        rows.append({"pictures": pictures, **_reduced(run, shapes, pictures, stretches_measured)})
    counts = [row["pictures"] for row in rows]
    named = ("site_cpu_s", "masks_cpu_s", "driver_cpu_s")
    at = {name: extrapolated(counts, [row[name] for row in rows], WHOLE) for name in named}
    parts = _parts(shapes)
    rounds = -(-18 * parts // CORES) / parts
    minutes = (rounds * at["site_cpu_s"] + at["masks_cpu_s"] / CORES + at["driver_cpu_s"]) / 60
    return {
        "sizes": rows,
        "exponent": exponent(counts, [row["site_cpu_s"] + row["masks_cpu_s"] for row in rows]),
        "minutes_at_40000_on_16_cores": minutes,
        "gb_a_task_at_40000": line(counts, [row["gb"] for row in rows], WHOLE),
        "extrapolated_cpu_s": at,
        "stretches_a_site": parts,
        "stretches_measured": stretches_measured or parts,
    }


def _parts(shapes: Shapes) -> int:
    """Into how many stretches a site is cut at 40,000 pictures."""
    (site, side), *_ = shapes.listened
    return len(stretches(site, shapes.features, WHOLE * side * side * shapes.k, shapes.concepts))


def _reduced(run: RunFolder, shapes: Shapes, pictures: int, stretches_measured: int) -> dict[str, float]:
    sites = {site: shapes.features for site, _ in shapes.listened}
    spent: list[dict[str, Any]] = []

    def apart(task: Any, jobs: Any, done: Any) -> None:
        for part in jobs:
            got = measured(_work, task, part)
            spent.append({"site": isinstance(part.items[0], Site | Stretch), "cpu_s": got["cpu_s"], "gb": got["gb"]})
            done(part, got["value"])

    before = job.PARALLEL_FROM, run_reduce.SLOTS, job.stretches
    job.PARALLEL_FROM, run_reduce.SLOTS = 0, run_reduce.SLOTS * pictures // WHOLE
    if stretches_measured:
        job.stretches = lambda *sizes: stretches(*sizes)[:stretches_measured]
    start = time.process_time()
    try:
        job.reduce_run(run, apart, pictures, sites, "synthetic", LabelConfig(), 20)
    finally:
        job.PARALLEL_FROM, run_reduce.SLOTS, job.stretches = before
    driver = time.process_time() - start
    site = [work for work in spent if work["site"]]
    share = _parts(shapes) / stretches_measured if stretches_measured else 1.0
    return {
        "site_cpu_s": sum(work["cpu_s"] for work in site) / len(sites) * share,
        "masks_cpu_s": sum(work["cpu_s"] for work in spent if not work["site"]),
        "driver_cpu_s": driver,
        "gb": max(work["gb"] for work in site),
    }


def _work(task: Any, item: Any) -> Any:
    return task.worker().run(item.items)


def coverage(shapes: Shapes, sizes: list[int]) -> dict[str, Any]:
    """Memory of choosing the second pass from a first one of so many pictures, at every site of `shapes`.

    Evidence is drawn once a shard and committed alone; of 40,000 pictures 24,000 are a first pass (coverage.first 0.6).
    """
    draw, rows = Synthetic(shapes), []
    prompts = [(f"a {name} and a {other}", (name, other)) for name in shapes.names for other in shapes.names[:20]]
    for pictures, run in growing(shapes, sizes, draw):
        got = measured(_chosen, run.path, prompts, pictures)
        rows.append({"pictures": pictures, "gb": got["gb"], "cpu_s": got["cpu_s"]})
    counts = [row["pictures"] for row in rows]
    return {
        "sizes": rows,
        "gb_at_40000": max(line(counts, [row["gb"] for row in rows], 0.6 * WHOLE), rows[-1]["gb"]),
        "exponent": exponent(counts, [row["cpu_s"] for row in rows]),
    }


def _chosen(path: str, prompts: Any, pictures: int) -> int:
    run = RunFolder(path)
    return len(choose_prompts(pass_evidence(run, run.shard_ids()), prompts, (), 20, 1000, 0))
