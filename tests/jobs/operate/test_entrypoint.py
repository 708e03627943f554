"""The command line of a job finds the command where the head's PATH lacks it, and says where it looked in vain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.operate.submit import entrypoint, submit

COMMAND = ["label", "--out", "runs/a b/$HOME;rm", "--set", 'saes={"*": "x"}', "name='x'"]


def run(python: str, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The job's command line as the shell of a head gets it."""
    kept = {"PATH": path, "HOME": "/", **environment}
    return subprocess.run(
        entrypoint(COMMAND, python), shell=True, env=kept, capture_output=True, text=True, check=False
    )


def program(folder: Path) -> Path:
    """An executable `gazetteer` that prints its words, one a line."""
    folder.mkdir(parents=True)
    file = folder / "gazetteer"
    file.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    file.chmod(0o755)
    return folder


@pytest.mark.parametrize("where", ["PATH", "VIRTUAL_ENV", "CONDA_PREFIX"])
def test_the_program_of_the_head_is_run_with_every_word_whole(tmp_path: Path, where: str) -> None:
    bin = program(tmp_path / "env" / "bin")
    system = "/usr/bin:/bin"
    done = run("/none", f"{bin}:{system}") if where == "PATH" else run("/none", system, **{where: str(bin.parent)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[: len(COMMAND)] == COMMAND
    assert done.stderr == ""


def test_else_the_interpreter_that_submits(tmp_path: Path) -> None:
    done = run(sys.executable, "/usr/bin:/bin", PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    assert f"not on the PATH of the head; running {sys.executable} -m gazetteer" in done.stderr
    assert done.returncode == 2  # saes is no such mapping: the command itself says so


@pytest.mark.parametrize("python", ["/none/python", "/bin/true-but-no-python"])
def test_a_head_without_it_is_told_what_to_do(python: str) -> None:
    done = run(python, "/usr/bin:/bin")
    assert done.returncode == 127
    (sentence,) = done.stderr.splitlines()
    assert f"no gazetteer on its PATH (/usr/bin:/bin) and none at {python}; install it there" in sentence


@pytest.mark.parametrize("verb", ["report", "export", ""])
def test_what_a_cluster_would_refuse_is_refused_here(verb: str) -> None:
    """It takes no ``--set``, by which the job is told where to run."""
    with pytest.raises(InputError, match="Of sae, train and threshold"):
        submit(["sae", verb, "--saes", "x"], "", "http://127.0.0.1:1")
