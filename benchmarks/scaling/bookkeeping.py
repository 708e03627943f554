"""What a shard costs on its way into a run: what travels, how long a record waits, how much a driver can do."""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from benchmarks.scaling.synthetic import Shapes, Synthetic
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import FAILURES, LABELLING_TABLES
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.task import Job, Lost, Task
from gazetteer.jobs.label.results import Finished, publish_shard
from gazetteer.labeling.pipeline.shard import ShardResult


def evidence_of_a_shard(shapes: Shapes) -> dict[str, float]:
    """MB of one shard: its evidence as a file, which is all of it that leaves the worker's memory, and as a table; and
    what travels from worker to driver once the parts are published."""
    tables = Synthetic(shapes).shard(0)
    result = ShardResult(tables, {}, {"images": shapes.pictures, "failures": 0, "segments": 0})
    with tempfile.TemporaryDirectory(prefix="gazetteer-scale-") as folder:
        run = RunFolder(folder).open_or_create({"synthetic": repr(shapes)})
        start = time.process_time()
        finished = publish_shard(run.workshop({}), "000000", result)
        spent = time.process_time() - start
    return {
        "evidence_mb_a_shard": finished.parts.tables["evidence"]["bytes"] / 1e6,
        "evidence_table_mb_a_shard": tables["evidence"].nbytes / 1e6,
        "codes_mb_a_shard": finished.parts.tables["codes"]["bytes"] / 1e6,
        "payload_kb_a_shard": len(pickle.dumps(finished)) / 1e3,
        "publish_cpu_s_a_shard": spent,
    }


def commit_wait(count: int = 30) -> dict[str, float]:
    """Milliseconds that recording a published shard waits without computing, and CPU, medians; the same of an empty
    shard committed by one process alone."""
    waits: dict[str, list[float]] = {"commit_ms": [], "commit_cpu_ms": [], "alone_ms": []}
    empty = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}
    with tempfile.TemporaryDirectory(prefix="gazetteer-scale-", dir=".") as folder:
        run = RunFolder(folder).open_or_create({"synthetic": "empty"})
        workshop = run.workshop({})
        for number in range(count):
            parts = workshop.publish(f"p{number:04d}", empty)
            wall, cpu = time.perf_counter(), time.process_time()
            run.record_parts(parts, {"images": 0})
            cpu = time.process_time() - cpu
            waits["commit_ms"].append(1e3 * (time.perf_counter() - wall - cpu))
            waits["commit_cpu_ms"].append(1e3 * cpu)
            wall, cpu = time.perf_counter(), time.process_time()
            run.commit_shard(f"a{number:04d}", empty, {"images": 0}, {})
            waits["alone_ms"].append(1e3 * (time.perf_counter() - wall - (time.process_time() - cpu)))
    return {name: statistics.median(seconds) for name, seconds in waits.items()}


class NullModel:
    """A worker without models: what it hands over is drawn once and published for every shard, as a real one's is."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.tables = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}

    def run(self, items: Sequence[int]) -> ShardResult:
        """Sleeps as long as a device would work."""
        time.sleep(self.seconds * len(items))
        return ShardResult(self.tables, {}, {"images": len(items), "segments": 0, "failures": 0})


def bookkeeping(pictures: int = 64, shards: int = 60, seconds: float = 0.0) -> dict[str, float]:
    """Pictures a second that one driver keeps up with: hands out, takes over, records; models left out.

    Counted is what the driver itself does: its CPU seconds, and its waits while it records. Its workers encode, hash
    and stage in processes of their own, beside one another.
    """
    with tempfile.TemporaryDirectory(prefix="gazetteer-scale-", dir=".") as folder:
        run = RunFolder(folder).open_or_create({"synthetic": "null"})
        seal = partial(publish_shard, run.workshop({}))
        task = Task(partial(NullModel, seconds), _joined, _lost, seal=seal)
        jobs = [Job(f"{number:06d}", tuple(range(pictures))) for number in range(shards)]
        waited = 0.0

        def done(job: Job, result: Finished) -> None:
            nonlocal waited
            wall, cpu = time.perf_counter(), time.process_time()
            run.record_parts(result.parts, dict(result.counts))
            waited += time.perf_counter() - wall - (time.process_time() - cpu)

        with ray_pools([PoolConfig(workers=2)], 1) as pools:
            run_ray(task, jobs[:4], done, pools)
            waited, cpu, wall = 0.0, time.process_time(), time.perf_counter()
            run_ray(task, jobs[4:], done, pools)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    made = pictures * (shards - 4)
    return {
        "bookkeeping_pictures_a_second": made / (cpu + waited),
        "driver_cpu_ms_a_shard": 1e3 * cpu / (shards - 4),
        "driver_wait_ms_a_shard": 1e3 * waited / (shards - 4),
        "wall_pictures_a_second": made / wall,
    }


def _joined(parts: Sequence[Any]) -> Any:
    return parts[0]


def _lost(item: Any, lost: Lost) -> ShardResult:
    tables = {name: schema.empty_table() for name, schema in LABELLING_TABLES.items()}
    row = {"stage": "worker", "item": str(item), "error": lost.error, "message": lost.message, "attempts": 1}
    tables["failures"] = pa.Table.from_pylist([row], schema=FAILURES)
    return ShardResult(tables, {}, {"images": 0, "segments": 0, "failures": 1})
