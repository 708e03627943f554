"""A run is looked at until it ends: one line an interval, none twice."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.operate.watch import watch
from tests.support.system.running import ROOT, in_process


@pytest.fixture
def going(scenes_run: Path, tmp_path: Path) -> tuple[Path, Callable[[int], None]]:
    """A run as one that goes on leaves it, and what writes its progress with so many pictures done."""
    run = tmp_path / "run"
    shutil.copytree(scenes_run / "_meta", run / "_meta")
    (run / "_meta" / "_SUCCESS").unlink()
    progress = json.loads((run / "_meta" / "progress.json").read_text())

    def write(done: int) -> None:
        now = datetime.now(timezone.utc).isoformat()
        images = {"done": done, "total": 16, "failed": 0}
        told = {"state": "running", "stage": "pass 1", "updated": now, "images": images, "images_per_second": 1.5}
        told["process"] = os.getpid()  # a living one
        RunFolder(run).write_json("progress.json", progress | told)

    write(4)
    return run, write


def test_lines_are_said_when_something_changes_and_the_end_ends_it(
    going: tuple[Path, Callable[[int], None]], scenes_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, write = going
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        write(4 if len(looks) < 3 else 8)
        if len(looks) == 5:
            shutil.copy(scenes_run / "_meta" / "_SUCCESS", run / "_meta" / "_SUCCESS")

    assert watch(run, 7, sleep)["state"] == "complete"
    assert looks == [7] * 5
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert "running (pass 1)" in said[0] and "4 of 16 pictures" in said[0] and "1.50 pictures/s" in said[0]
    assert "8 of 16 pictures" in said[1]
    assert ": complete, " in said[2]


def test_a_terminal_is_drawn_over_in_place(scenes_run: Path) -> None:
    above, below = pty.openpty()
    command = [sys.executable, "-m", "gazetteer", "watch", str(scenes_run)]
    with subprocess.Popen(command, cwd=ROOT, stdout=below, env=os.environ | {"TERM": "xterm"}) as child:
        assert child.wait(60) == 0
    assert b": complete" in os.read(above, 10_000)
    os.close(above)
    os.close(below)


def test_exit_codes_and_wrong_words(
    going: tuple[Path, Callable[[int], None]], scenes_run: Path, tmp_path: Path
) -> None:
    run, _ = going
    stopped = json.loads((run / "_meta" / "progress.json").read_text()) | {
        "state": "stopped",
        "error": "It was stopped",
    }
    RunFolder(run).write_json("progress.json", stopped)
    assert in_process("watch", str(run)).returncode == 1
    done = in_process("watch", str(scenes_run), "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "complete")
    assert in_process("watch", str(tmp_path / "none")).returncode == 2
    for interval in ("0", "-1", "nan", "inf"):
        assert in_process("watch", str(scenes_run), "--interval", interval).returncode == 2
    with pytest.raises(InputError):
        watch(scenes_run, 0)
