"""A run's numbers for Prometheus, through the exporter that every Ray node already has; nothing without Ray."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


class RunMetrics:
    """Counters and gauges with the tag `run`; Ray serves them on each node's metrics port as ``ray_gazetteer_*``.

    Args:
        run: the run's name, the last part of its path.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._instruments: dict[str, Any] = {}

    def shard(self, counts: Mapping[str, int], seconds: Mapping[str, float], seconds_left: float | None) -> None:
        """Count a committed shard: its pictures, segments and failures, and the worker seconds of each stage."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        if not self._instruments:
            self._instruments = _instruments()
        tags = {"run": self._run}
        self._instruments["shards"].inc(1, tags)
        for name in ("images", "segments", "failures"):
            if counts.get(name):
                self._instruments[name].inc(counts[name], tags)
        for stage, spent in seconds.items():
            if spent > 0:
                self._instruments["stage_seconds"].inc(spent, {**tags, "stage": stage})
        if seconds_left is not None:
            self._instruments["seconds_left"].set(seconds_left, tags)


def _instruments() -> dict[str, Any]:
    from ray.util.metrics import Counter, Gauge

    what = {
        "shards": "shards committed",
        "images": "pictures labelled",
        "segments": "segments found",
        "failures": "pictures that failed",
    }
    made: dict[str, Any] = {
        name: Counter(f"gazetteer_{name}", description=text, tag_keys=("run",)) for name, text in what.items()
    }
    made["stage_seconds"] = Counter(
        "gazetteer_stage_seconds", description="worker seconds per stage", tag_keys=("run", "stage")
    )
    made["seconds_left"] = Gauge("gazetteer_seconds_left", description="estimate of the run", tag_keys=("run",))
    return made
