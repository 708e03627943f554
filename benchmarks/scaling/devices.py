"""Which devices the workers of a run get on a cluster of two nodes whose GPUs exist by name only."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.task import Job, Task
from gazetteer.labeling.pipeline.config import STAGES

NODES, GPUS = 2, 4


class Seen:
    """Says where it is and which devices it sees."""

    def __init__(self, *_: Any) -> None:
        import ray

        self.me = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "all")

    def run(self, items: Sequence[int]) -> list[tuple[str, str]]:
        """(node, devices) for every item, slowly enough that every worker gets one."""
        time.sleep(1.0)
        return [self.me for _ in items]


def gpu_workers() -> dict[str, Any]:
    """Eight workers of a run whose models are on ``cuda``, on two nodes of four devices: distinct (node, devices)."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray").mkdir(exist_ok=True)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 8, "num_gpus": GPUS, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=8, num_gpus=GPUS)
        settings = ["model.device=cuda", "detector.device=cuda", "segmenter.device=cuda", f"workers={NODES * GPUS}"]
        config = load_config(None, settings)
        placed: list[tuple[str, str]] = []
        task = Task(Seen, _joined, _cannot, STAGES)
        jobs = [Job(f"job {number}", (number,)) for number in range(6 * NODES * GPUS)]
        with ray_pools(config.all_pools, 1, cluster.address) as pools:
            run_ray(task, jobs, lambda _, result: placed.extend(result), pools)
    finally:
        cluster.shutdown()
    return {
        "gpu_workers_distinct": len(set(placed)),
        "gpu_workers": NODES * GPUS,
        "gpu_nodes": len({node for node, _ in placed}),
        "cuda_visible_devices": sorted({devices for _, devices in placed}),
    }


def _joined(parts: Sequence[Any]) -> Any:
    return [row for part in parts for row in part]


def _cannot(item: Any, lost: Any) -> Any:
    raise RuntimeError(f"{item}: {lost}")
