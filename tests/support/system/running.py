"""Run the command as a user does, on the embedded models, small enough for tests."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    "images=16", "shard_size=4", "generation.steps=4", "coverage.wanted=4", "labels.min_images=2",
    "labels.permutations=50", "labels.refine=100",
]  # fmt: skip
ONE_SITE = ["generation.blocks=[mid_block.attentions.0]", "generation.branches=[cond]", "generation.t=[1.0]"]
FEW = [*SMALL, *ONE_SITE, "generation.steps=2", "images=12", "shard_size=2"]
"""As little as a run can be that still has two passes and several shards."""


def gazetteer(*arguments: str, cwd: Path = ROOT, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """The finished command with what it printed."""
    command = [sys.executable, "-m", "gazetteer", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout)


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command within this process, which has loaded the libraries already; as `gazetteer`, for many short calls."""
    from gazetteer.jobs.cli.main import main

    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        code = main(list(arguments))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


def label(out: Path, *settings: str, retry_failed: bool = False) -> subprocess.CompletedProcess[str]:
    """`gazetteer label` with the small settings; later settings win."""
    retry = ["--retry-failed"] if retry_failed else []
    return gazetteer("label", "--out", str(out), *retry, "--set", *SMALL, *settings)


def digests(run: Path) -> dict[str, str]:
    """sha256 of every Parquet file, parts and final tables, by its place in the run."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*.parquet"))
    }


def kill_at(line: str, script: str, *arguments: str) -> None:
    """Run a Python script that prints a line and waits for one in turn; SIGKILL it when it has printed `line`."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for printed in child.stdout:
            if printed.strip() == line:
                child.kill()
                break
            child.stdin.write("\n")
            child.stdin.flush()
    assert child.returncode == -signal.SIGKILL
