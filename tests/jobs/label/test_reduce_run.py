"""Sites reduced as tasks on Ray, by workers that are killed meanwhile, come to the tables of one process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.schemas import FAILURES
from gazetteer.jobs.config.pools import PoolConfig
from gazetteer.jobs.executors.ray.executor import ray_pools, run_ray
from gazetteer.jobs.executors.serial import run_serial
from gazetteer.jobs.label import reduce
from gazetteer.jobs.label.failures import open_failures
from gazetteer.labeling.rules import run_reduce
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.run_reduce import SiteReducer, SiteTables, Stretch, StretchReducer
from tests.support.runs.small_world import MID, World, sky_world

pytestmark = pytest.mark.alone


class DiesOnce(SiteReducer):
    """Takes its process down the first time that anybody reduces; the model's name is a file that says so."""

    def run(self, items: Sequence[Site]) -> SiteTables:
        die_once(self.model)
        return super().run(items)


class DiesOnceInAStretch(StretchReducer):
    """The same, of a site that is cut by its features."""

    def run(self, items: Sequence[Stretch]) -> list[Any]:
        die_once(f"{self.reducer.model}-{'rows' if items[0].verdicts else 'tests'}")
        return super().run(items)


def die_once(mark: str) -> None:
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_reducer_is_replaced_and_the_tables_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, world = RunFolder(tmp_path / "run").open_or_create({"toy": 1}), sky_world(30)
    for third in range(3):
        part = World(world.inputs[third::3], world.base)
        tables = {
            "images": part.images, "codes": part.codes, "segments": part.segments, "evidence": part.evidence,
            "failures": FAILURES.empty_table(),
        }  # fmt: skip
        store.commit_shard(f"s{third}", tables, {"images": 10, "failures": 0}, {})
    assert open_failures(store) == []
    died = tmp_path / "died"

    def reduced(share_out: Any, from_here: int) -> dict[str, Any]:
        monkeypatch.setattr(reduce, "PARALLEL_FROM", from_here)
        return reduce.reduce_run(store, share_out, 30, {MID: 4}, str(died), LabelConfig(), 20)

    alone = reduced(run_serial, 10**9)
    assert alone["labels"].num_rows > 0
    monkeypatch.setattr(reduce, "SiteReducer", DiesOnce)
    with ray_pools([PoolConfig(workers=1)], 1) as pools:
        shared = reduced(lambda task, jobs, done: run_ray(task, jobs, done, pools), 0)
        monkeypatch.setattr(reduce, "StretchReducer", DiesOnceInAStretch)
        monkeypatch.setattr(run_reduce, "SLOTS", 1)
        cut = reduced(lambda task, jobs, done: run_ray(task, jobs, done, pools), 0)
    assert all(Path(f"{died}{stage}").exists() for stage in ("", "-tests", "-rows"))
    assert {name: table.equals(alone[name]) for name, table in shared.items()} == dict.fromkeys(alone, True)
    assert {name: table.equals(alone[name]) for name, table in cut.items()} == dict.fromkeys(alone, True)
