"""A plan by another run: whole shards are counted, work that was not done is no measure, no option is passed over."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import Commit, RunFolder
from gazetteer.data.runs.shards.groups import info_of_group
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.operate import measured_run
from gazetteer.jobs.operate.compact import compact
from gazetteer.jobs.operate.measured_run import Measured, bytes_like
from gazetteer.jobs.operate.plan import plan, print_plan
from gazetteer.jobs.operate.rates import Rates
from tests.support.system.running import SMALL


def part(size: int) -> dict[str, Any]:
    return {"rows": 1, "bytes": size, "sha256": ""}


def test_a_group_stands_for_its_shards() -> None:
    info = {"images": 16, "seconds": {"generate": 1.0}}
    shards = [Commit(f"s{i}", {"evidence": part(1000), "images": part(5000)}, info) for i in range(100)]
    both = {"images": 1600, "seconds": {"generate": 100.0}}
    group = Commit("g", {"evidence": part(100_000), "images": part(500_000)}, info_of_group(both, shards))
    config: Any = SimpleNamespace(images=1600, shard_size=16)
    for commits in (shards, [group]):
        foretold = bytes_like(config, 100, Measured(commits), {"shard_size": 16})
        assert foretold == {"evidence": 100_000, "images": 500_000}


def test_a_compacted_run_foretells_what_it_did_before(scenes_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes_run, run)
    config = load_config(None, SMALL)
    before = plan(config, Rates(like=str(run)))["bytes"]
    assert compact(run)["shards"] > 1
    after = plan(config, Rates(like=str(run)))["bytes"]
    assert after["evidence"] == pytest.approx(before["evidence"], rel=0.3)


def test_pictures_taken_over_are_no_measure(scenes_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured_run.RunFolder.committed

    def replayed(store: RunFolder, **how: bool) -> dict[str, Commit]:
        return {k: dataclasses.replace(c, info={**c.info, "replayed": 1}) for k, c in whole(store, **how).items()}

    monkeypatch.setattr(measured_run.RunFolder, "committed", replayed)
    with pytest.raises(InputError, match=r"pictures over from another run \(--reuse\)"):
        plan(load_config(None, SMALL), Rates(like=str(scenes_run)))


def test_a_runs_own_reducing_is_no_cpu_time(scenes_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(plan(load_config(None, SMALL), Rates(like=str(scenes_run))))
    said = capsys.readouterr().out
    assert "h with as many workers as the run of --like had" in said
    print_plan(plan(load_config(None, SMALL), Rates()))
    assert "CPU hours in" in capsys.readouterr().out


def test_options_that_would_do_nothing_are_refused(scenes_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    like, small = ("--like", str(scenes_run)), ("--set", *SMALL)
    for words, said in (
        (("--utilisation", "0.3"), "name the device with --device"),
        (("--utilisation", "7"), "name the device with --device"),
        (("--utilisation", "7", "--device", "a100"), "--utilisation lies in (0, 1]"),
        (("--tflops", "3", "--device", "a100"), "leave one of them out"),
        ((*like, "--tflops", "3", *small, "sae=null"), "nothing is left that --device or --tflops would price"),
    ):
        assert main(["plan", *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["plan", *like, "--device", "a100", *small, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["sae"]["device_hours"] and f"hours of label are those of {scenes_run}" in " ".join(result["assumed"])
