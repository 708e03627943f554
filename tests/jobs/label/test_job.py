"""The labelling job end to end on the embedded models: real processes, real kills, the same tables every time."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gazetteer.jobs.cli.main import main
from tests.support.system.running import ROOT, SMALL, digests, gazetteer, label

APART = (
    "pools=[{stages: [generate], workers: 1}, {stages: [detect, segment], workers: 1, cpus: 0.5}, "
    "{stages: [evidence], workers: 1, cpus: 0.5}]"
)


def test_the_run_holds_every_table_and_every_site(scenes_run: Path) -> None:
    names = {path.split("/")[0] for path in digests(scenes_run)}
    final = {"labels.parquet", "candidates.parquet", "features.parquet"}
    assert names == {"images", "codes", "segments", "evidence", "failures"} | final
    features = pq.read_table(scenes_run / "features.parquet")
    sites = {tuple(row.values()) for row in features.select(["block", "branch", "t"]).to_pylist()}
    assert len(sites) == 24
    images = pq.read_table(scenes_run / "images")
    assert images.num_rows == 16
    assert pq.read_table(scenes_run / "codes").num_rows == 16 * 24
    assert pq.read_table(scenes_run / "segments").num_rows > 16
    assert set(images["split"].to_pylist()) == {"discovery", "heldout"}


def test_the_second_pass_was_planned_from_the_first(scenes_run: Path) -> None:
    first, second = (json.loads((scenes_run / f"_meta/plan-{n}.json").read_text())["items"] for n in (1, 2))
    assert len(first) == 12
    assert len(second) == 4
    assert not {row["image_id"] for row in first} & {row["image_id"] for row in second}


EVERY_SITE = [*SMALL, "images=12", "generation.steps=3"]
IN_FULL = [pytest.mark.alone, pytest.mark.full]


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tables of a run in one process that takes one picture at a time, at every site."""
    run = tmp_path_factory.mktemp("one_by_one") / "run"
    assert main(["label", "--out", str(run), "--set", *EVERY_SITE, "executor=serial", "batch_size=1", "helpers=0"]) == 0
    return digests(run)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["executor=serial", "batch_size=3"], id="serial"),
        pytest.param(["executor=ray", "workers=2", "batch_size=8"], id="ray", marks=pytest.mark.alone),
        pytest.param([APART, "executor=ray", "batch_size=3"], id="stages apart", marks=IN_FULL),
    ],
)
def test_tables_do_not_depend_on_executor_workers_or_batch(
    one_by_one: dict[str, str], tmp_path: Path, settings: list[str]
) -> None:
    words = ["label", "--out", str(tmp_path / "run"), "--set", *EVERY_SITE, *settings]
    if "executor=serial" in settings:
        assert main(words) == 0
    else:  # Ray keeps some of its settings for as long as a process lives
        done = gazetteer(*words)
        assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "run") == one_by_one


def test_killed_again_and_again_it_resumes_to_the_same_tables(scenes_run: Path, tmp_path: Path) -> None:
    run, kills = tmp_path / "run", 0
    chance = random.Random(0)
    command = [sys.executable, "-m", "gazetteer", "label", "--out", str(run), "--set", *SMALL, "executor=serial"]
    for committed in (1, 2, 3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(run.glob("_meta/commits/*.json"))) < committed:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.5)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2, "the run ended before it could be killed"
    done = label(run, "executor=serial")
    assert done.returncode == 0, done.stderr
    assert digests(run) == digests(scenes_run)


def test_a_finished_run_starts_neither_ray_nor_a_model(scenes_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in scenes_run.rglob("*") if path.is_file()}
    script = (
        "import sys\nfrom gazetteer.jobs.cli.main import main\n"
        f"code = main(['label', '--out', {str(scenes_run)!r}, '--set', *{SMALL!r}, 'executor=ray'])\n"
        "assert code == 0\n"
        "assert not {'ray', 'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in scenes_run.rglob("*") if path.is_file()}
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path.name for path in changed} <= {"lock"}


def test_what_a_finished_run_takes_over_is_said(scenes_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(scenes_run, tmp_path / "run")
    done = label(run, "executor=serial", "accuracy.images=7")
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert f"later commands on {run} go by the accuracy.images given now" in done.stdout


def test_parts_cut_short_are_named_and_computed_again(scenes_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes_run, run)
    cut = [sorted((run / table).glob("*.parquet"))[at] for table, at in (("segments", 0), ("images", -1))]
    for part in cut:
        part.write_bytes(part.read_bytes()[:100])
    (run / "_meta/_SUCCESS").unlink()
    done = label(run, "executor=serial")
    assert done.returncode == 0, done.stderr
    assert all(part.name in done.stderr + done.stdout for part in cut)
    assert digests(run) == digests(scenes_run)


def test_another_config_on_the_same_run_is_refused_naming_the_key(scenes_run: Path) -> None:
    done = label(scenes_run, "executor=serial", "seed=5")
    assert done.returncode == 2
    assert "seed: was 0, now 5" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_drivers_on_one_run_give_one_set_of_rows(scenes_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "gazetteer", "label", "--out", str(run), "--set", *SMALL, "executor=serial"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    codes = sorted(process.wait(timeout=500) for process in both)
    for process in both:
        process.communicate()
    # Whoever comes second is told that the run is held, unless the first had already finished.
    assert codes in ([0, 75], [0, 0])
    assert digests(run) == digests(scenes_run)
