"""`gazetteer status` tells the truth about a run that is planned, running, killed, stopped, failed or complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.cli.main import main
from gazetteer.jobs.label.progress.run_state import RunState
from gazetteer.jobs.operate.status import SILENT, status
from tests.support.runs.runs import commit, finished_run
from tests.support.system.running import ONE_SITE, ROOT, SMALL, gazetteer

SHORT = [*ONE_SITE, "generation.steps=2", "executor=serial", "shard_size=1"]


def running(run: Path, *settings: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gazetteer", "label", "--out", str(run), "--set", *SMALL, *SHORT, *settings]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def until_committed(run: Path, process: subprocess.Popen[bytes], shards: int) -> dict[str, Any]:
    while process.poll() is None:
        if (run / "_meta/run.json").exists() and (found := status(run))["shards"]["done"] >= shards:
            return found
        time.sleep(0.05)
    raise AssertionError(process.stderr and process.stderr.read())


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "_meta/log.jsonl").read_text().splitlines()]


def test_a_run_is_watched_stopped_and_finished(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = running(run)
    found = until_committed(run, process, 2)
    assert found["state"] == "running"
    assert found["stage"] == "label"
    assert found["process"] == process.pid
    assert 2 <= found["shards"]["done"] < found["shards"]["total"] == 16, "12 now, and 4 when coverage is planned"
    assert found["images"]["total"] == 16
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    stopped = status(run)
    assert stopped["state"] == "stopped"
    assert stopped["images_per_second"] is None

    before = lines(run)
    again = gazetteer("label", "--out", str(run), "--log", "-", "--set", *SMALL, *SHORT)
    assert again.returncode == 0, again.stderr
    said = [json.loads(line) for line in again.stderr.splitlines() if line.startswith("{")]
    assert said == lines(run)[len(before) :], "the log also goes to stderr when asked"
    done = gazetteer("status", str(run), "--json")
    assert done.returncode == 0, done.stderr
    complete = json.loads(done.stdout.splitlines()[-1])
    assert complete["state"] == "complete"
    assert complete["shards"]["done"] == complete["shards"]["total"] == 16
    assert complete["images"] == {"done": 16, "total": 16, "failed": 0}
    assert "16 of 16 committed" in done.stderr, "standard output is for the machine"

    logged = lines(run)
    committed = [line["shard"] for line in logged if line["message"] == "shard committed"]
    recorded = {path.stem for path in (run / "_meta/commits").glob("*.json")}
    # A record comes before its line: the signal may have fallen between the two, once.
    assert len(committed) == len(set(committed))
    assert set(committed) <= recorded
    assert len(recorded) - len(committed) <= 1
    assert [line["message"] for line in logged if line["message"].startswith("run ")] == [
        "run started", "run stopped", "run started", "run complete",
    ]  # fmt: skip
    assert all({"time", "level", "logger"} <= line.keys() for line in logged)


def test_a_failed_run_says_why_and_its_log_names_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("raising poison and a boat\na tree\n")
    monkeypatch.setenv("GAZETTEER_TEST_POISON", "raising")
    settings = [
        *SHORT, f"prompts.path={prompts}", "images=2", "coverage.first=1.0", "vocabulary.ask=both",
        "vocabulary.nouns=tests.support.system.toy_work:nouns", "max_failed_fraction=0.1",
    ]  # fmt: skip
    assert main(["label", "--out", str(tmp_path / "run"), "--set", *SMALL, *settings]) == 1
    found = status(tmp_path / "run")
    assert found["state"] == "failed"
    assert "1 of 2 pictures could not be processed" in found["error"]
    assert found["shards"]["with_failures"] == found["images"]["failed"] == 1
    (failed,) = [line for line in lines(tmp_path / "run") if line["message"] == "picture failed"]
    assert "poisonous" in failed["error"]
    assert failed["shard"] in {path.stem for path in (tmp_path / "run/_meta/commits").glob("*.json")}


def test_a_process_that_stopped_writing_is_said_to_be_silent(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).open_or_create({"config": "abc"})
    assert status(tmp_path)["state"] == "planned"
    state = RunState(lambda content: run.write_json("progress.json", content), interval=3600.0)
    state.start()
    state.enter("label", {"done": 0, "total": 3, "with_failures": 0}, {"done": 0, "total": 6, "failed": 0})
    commit(run, "s0")
    state.shard(2, 0)
    state.publish()
    found = status(tmp_path)
    assert (found["state"], found["shards"]["done"], found["images"]["done"]) == ("running", 1, 2)
    assert found["images_per_second"] > 0
    assert found["seconds_left"] is not None
    commit(run, "s1")
    assert status(tmp_path)["shards"]["done"] == 2, "the commit counts, whatever progress.json says"
    state.shard(2, 0)
    until = time.monotonic() + 30
    while status(tmp_path)["images"]["done"] != 4:
        assert time.monotonic() < until, "a commit is written soon, however long the interval"
        time.sleep(0.1)

    old = run.read_json("progress.json") | {"updated": "2020-01-01T00:00:00+00:00"}
    run.write_json("progress.json", old)
    found = status(tmp_path)
    assert found["state"] == "silent"
    assert found["seconds_left"] is None
    state.end("complete")
    assert status(tmp_path)["state"] == "stopped", "complete is what _SUCCESS says, nothing else"


def test_a_killed_process_of_this_machine_is_known_at_once_and_its_committed_pictures_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    process = running(run, "images=6", "coverage.first=1.0")
    until_committed(run, process, 1)
    process.kill()
    process.wait()
    found = status(run)
    assert found["state"] == "silent" and found["gone"] and found["seconds_silent"] < SILENT * found["interval"]
    assert found["images"]["done"] == found["shards"]["done"] > 0, "shards of one picture"
    assert main(["status", str(run)]) == 0
    assert f"Process {process.pid} of this machine is no more; give its command again" in capsys.readouterr().out


def test_readers_never_meet_half_a_progress_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).open_or_create({"config": "abc"})
    state = RunState(lambda content: run.write_json("progress.json", content), interval=0.001)
    state.start()
    seen = [status(tmp_path) for _ in range(200)]
    state.end("failed", "why")
    assert {(found["stage"], found["process"]) for found in seen} == {("plan", os.getpid())}
    assert status(tmp_path)["error"] == "why"


def test_status_reads_a_run_behind_a_url_and_changes_nothing(tmp_path: Path) -> None:
    import fsspec

    run = finished_run("memory://status-test/run")
    run.finish({"shards": ["s0", "s1"], "images": 2, "failing": ["i9"]})
    before = {name: fsspec.filesystem("memory").info(name) for name in fsspec.filesystem("memory").find("/status-test")}
    found = status("memory://status-test/run")
    assert (found["state"], found["failing"], found["shards"]["done"]) == ("complete", 1, 2)
    after = {name: fsspec.filesystem("memory").info(name) for name in fsspec.filesystem("memory").find("/status-test")}
    assert after == before


def test_status_of_something_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [("plan-1.json", "[]"), ("plan-1.json", '{"items": null}'), ("progress.json", "NaN"),
     ("progress.json", '{"state": "running", "updated": "2026-01-01T00:00:00"}'),
     ("progress.json", '{"state": "running", "updated": null}'),
     ("progress.json", '{"state": "running", "updated": "2026-01-01T00:00:00+00:00", "interval": "5 s"}'),
     ("progress.json", '{"state": "running", "updated": "2026-01-01T00:00:00+00:00", "seconds_left": "x"}')],
)  # fmt: skip
def test_an_edited_plan_or_progress_is_said(tmp_path: Path, name: str, text: str) -> None:
    RunFolder(tmp_path / "run").open_or_create({})
    (tmp_path / "run" / "_meta" / name).write_text(text)
    with pytest.raises(InputError, match=r"no plan any more|progress\.json is corrupt"):
        status(tmp_path / "run")
