"""What orchestration costs: the bare stages in one and in two plain processes against one and two workers on Ray.

Rates are pictures per second of whole calls on workers that have loaded their models; on Ray every shard is also
committed to a run folder on disk, which the bare stages are spared. The arms take turns, round after round, so that a
machine whose speed drifts is fair to all. `efficiency_2_workers` is the rate of two workers over twice that of one;
`efficiency_2_processes` the same for plain processes without Ray, which is what the machine itself gives: its cores
share memory, caches and clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _checkout  # noqa: F401

from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.provenance import provenance
from gazetteer.jobs.config.fingerprint import fingerprint_of, picture_digest, portable_config
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.config.schema import RunConfig, load_config
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.serial import run_serial
from gazetteer.jobs.executors.task import Job, Task
from gazetteer.jobs.label import shards as plan
from gazetteer.jobs.label.results import join_results, lost_item
from gazetteer.labeling.pipeline.config import STAGES
from gazetteer.labeling.pipeline.shard import ShardResult
from gazetteer.labeling.pipeline.stages import Stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML configuration (default: the embedded world)")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=2, help="shards a worker does in each round")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    config = load_config(arguments.config, ["threads=1", *arguments.settings])
    result = Comparison(config, arguments.rounds, arguments.shards).run()
    print(
        f"pictures/s: bare {result['bare']:.3f}, one worker {result['one_worker']:.3f}, "
        f"two workers {result['two_workers']:.3f}; efficiency {result['efficiency_2_workers']:.3f} "
        f"({min(result['efficiencies']):.3f} to {max(result['efficiencies']):.3f}), of plain processes "
        f"{result['efficiency_2_processes']:.3f}; overhead {result['overhead']:.1%}"
    )
    if arguments.json:
        print(json.dumps(result))


class Neighbour:
    """The bare stages in a process of its own, with its models loaded."""

    def __init__(self, config: RunConfig, shards: int) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_serve, args=(theirs, config, shards), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def begin(self) -> None:
        """Start on the second half of the shards."""
        self.pipe.send(True)

    def wait(self) -> None:
        """Until they are done."""
        self.pipe.recv()

    def end(self) -> None:
        """Let the process go."""
        self.pipe.send(False)
        self.process.join()


def _serve(pipe: Connection, config: RunConfig, shards: int) -> None:
    warm = Comparison(config, 0, shards)
    jobs = warm.jobs[len(warm.jobs) // 2 :]
    warm.bare(jobs[:1], None)
    pipe.send(True)
    while pipe.recv():
        warm.bare(jobs, None)
        pipe.send(True)


class Comparison:
    """The four arms on the same shards."""

    def __init__(self, config: RunConfig, rounds: int, shards: int) -> None:
        self.config, self.rounds, self.shards = config, rounds, shards
        self.fingerprint = fingerprint_of(config)
        self.provenance = provenance(self.fingerprint, portable_config(config))
        pictures = picture_digest(self.fingerprint)
        pool = plan.read_pool(config)
        size = config.shard_size
        items = plan.make_items(pool[: 2 * shards * size], config.seed, pictures)
        self.jobs = [Job(f"s{at}", tuple(items[at : at + size])) for at in range(0, len(items), size)]
        self.task = Task(partial(Stages, config.stages), join_results, lost_item, STAGES, config.limits.picture_seconds)
        worker = self.task.worker()
        self.local = Task(lambda *_: worker, join_results, lost_item, STAGES)

    def run(self) -> dict[str, Any]:
        half = self.jobs[: len(self.jobs) // 2]
        rates: dict[str, list[float]] = {"bare": [], "two_bare": [], "one_worker": [], "two_workers": []}
        neighbour = Neighbour(self.config, self.shards)

        def two_bare(jobs: list[Job], done: Any) -> None:
            neighbour.begin()
            self.bare(jobs[: len(jobs) // 2], done)
            neighbour.wait()

        with ray_pools([PoolConfig(STAGES, 2)], threads=1) as pools:
            two = list(pools.place()[0])
            single = [PoolConfig(STAGES, 1)]
            arms = {
                "bare": self.bare,
                "two_bare": two_bare,
                "one_worker": lambda jobs, done: self.on_ray(pools, single, jobs, done),
                "two_workers": lambda jobs, done: self.on_ray(pools, two, jobs, done),
            }
            arms["two_workers"](self.jobs[:2], lambda *_: None)  # both workers have loaded their models
            for number in range(self.rounds):
                order = list(arms)[number % len(arms) :] + list(arms)[: number % len(arms)]
                for name in order:
                    jobs = self.jobs if name.startswith("two") else half
                    rates[name].append(self.measured(arms[name], jobs))
        neighbour.end()
        efficiencies = [b / (2 * a) for a, b in zip(rates["one_worker"], rates["two_workers"], strict=True)]
        plain = [b / (2 * a) for a, b in zip(rates["bare"], rates["two_bare"], strict=True)]
        overheads = [a / b - 1 for a, b in zip(rates["bare"], rates["one_worker"], strict=True)]
        return {
            **{name: statistics.median(values) for name, values in rates.items()},
            "efficiency_2_workers": statistics.median(efficiencies),
            "efficiencies": [round(value, 4) for value in efficiencies],
            "efficiency_2_processes": statistics.median(plain),
            "efficiencies_processes": [round(value, 4) for value in plain],
            "overhead": statistics.median(overheads),
            "overheads": [round(value, 4) for value in overheads],
            "pictures": len(self.jobs) * self.config.shard_size,
            "load_average": os.getloadavg()[0],
            "cpus": os.cpu_count(),
        }

    def bare(self, jobs: list[Job], _: Any) -> None:
        """The stages in this process; what they make is dropped."""
        run_serial(self.local, jobs, lambda *_: None)

    def on_ray(self, pools: Any, sizes: list[PoolConfig], jobs: list[Job], done: Any) -> None:
        """With so many of the loaded workers; the others idle."""
        for pool, size in zip(pools.serve(self.task), sizes, strict=True):
            pool.config = size
        run_ray(self.task, jobs, done, pools)

    def measured(self, arm: Any, jobs: list[Job]) -> float:
        """Pictures per second; what the arm hands over is committed to a fresh run folder."""
        with tempfile.TemporaryDirectory(prefix="gazetteer-bench-") as folder:
            store = RunFolder(folder).open_or_create(self.fingerprint)

            def done(job: Job, result: ShardResult) -> None:
                store.commit_shard(job.id, result.tables, dict(result.counts), self.provenance)

            start = time.perf_counter()
            arm(jobs, done)
            return sum(len(job.items) for job in jobs) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
