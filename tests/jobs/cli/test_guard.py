"""Whatever goes wrong inside ends in one sentence and an exit code; what nobody foresaw leaves its trace in a file."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gazetteer import __version__
from gazetteer.jobs.cli.guard import guarded
from tests.support.system.running import ROOT, gazetteer

COMMAND = f"{sys.executable} -m gazetteer"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)


def ending(error: BaseException) -> int:
    def action(_: argparse.Namespace) -> int:
        raise error

    return guarded(argparse.Namespace(resumes=True), action)


def test_what_nobody_foresaw_is_one_sentence_with_its_trace_in_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ending(ZeroDivisionError("by\nzero")) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    found = re.fullmatch(r"gazetteer: ZeroDivisionError: by zero; this was not foreseen, .* is in (\S+\.log)\.", said)
    assert found, said
    trace = Path(found[1]).read_text()
    assert trace.startswith(f"gazetteer {__version__}") and "Traceback" in trace and "in action" in trace
    assert Path(found[1]).stat().st_mode & 0o077 == 0


def test_a_trace_that_no_file_can_take_is_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert ending(KeyError("x")) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and said.strip().endswith("the trace above is worth a report.")


def test_a_file_and_memory_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ending(PermissionError(13, "Permission denied", "/root/x")) == 1
    assert "/root/x cannot be used (Permission denied)" in capsys.readouterr().err
    assert ending(MemoryError()) == 1
    assert "too little memory" in capsys.readouterr().err


def test_stops_have_the_codes_of_signals(capsys: pytest.CaptureFixture[str]) -> None:
    class Terminated(KeyboardInterrupt):
        signal = signal.SIGTERM

    assert ending(KeyboardInterrupt()) == 130
    assert ending(Terminated()) == 143
    assert capsys.readouterr().err.count("run the same command again") == 2


@pytest.mark.parametrize("options", ["", "--json"])
def test_a_full_disk_on_stdout_is_a_sentence(options: str, tmp_path: Path) -> None:
    done = shell(f"{COMMAND} launch {tmp_path}/files {options} > /dev/full")
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()
    assert said[-1].startswith("gazetteer: ") and "No space left on device" in said[-1]
    assert len(said) == 1 or options


@pytest.mark.parametrize("options", ["", "--json"])
@pytest.mark.parametrize("python", ["", "PYTHONUNBUFFERED=1"])
def test_a_reader_that_has_enough_ends_it_quietly(python: str, options: str, tmp_path: Path) -> None:
    done = shell(f"set -o pipefail; {python} {COMMAND} launch {tmp_path}/files {options} | true")
    assert done.returncode == 1
    assert done.stderr == "" or options


def test_a_pipe_of_another_process_is_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ending(BrokenPipeError(32, "Broken pipe")) == 1
    assert "gazetteer: BrokenPipeError: [Errno 32] Broken pipe; this was not foreseen" in capsys.readouterr().err


def test_letters_that_the_terminal_lacks_are_shown_by_number(tmp_path: Path) -> None:
    done = shell(f"PYTHONIOENCODING=ascii {COMMAND} launch {tmp_path}/héron")
    assert done.stderr == ""
    assert "/h\\xe9ron/" in done.stdout


def test_version_and_verbs_that_are_misspelt() -> None:
    assert gazetteer("--version").stdout == f"gazetteer {__version__}\n"
    for words, meant in ((["lable"], "label"), (["config", "--confg=x"], "--config"), (["sae", "trian"], "train")):
        done = gazetteer(*words)
        assert done.returncode == 2
        assert f"did you mean {meant}?" in done.stderr
    assert "did you mean" not in gazetteer("label", "run", "--pictures", "3").stderr  # an option of other verbs
