"""Two training processes take the step that one would take on their batches together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.scenes.training.parallel import average_gradients, rank, run, shared, workers
from tests.support.system.running import ROOT


def part_of_a_step(folder: Path, rows: int) -> None:
    """Gradients of this process's share of the rows, averaged; the first process writes them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2), torch.randn(rows, 3)
    fraction = rows // workers()
    layer(x[rank() * fraction : (rank() + 1) * fraction]).square().mean().backward()
    average_gradients(list(layer.parameters()))
    decided = shared(10.0 + rank())
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    torch.save({**gradients, "decided": torch.tensor(decided)}, folder / f"{workers()}_{rank()}.pt")


def test_two_workers_average_to_the_step_of_one(tmp_path: Path) -> None:
    run(part_of_a_step, 1, tmp_path, 8)
    run(part_of_a_step, 2, tmp_path, 8)
    whole, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    for name in ("weight", "bias"):
        torch.testing.assert_close(first[name], whole[name])
        assert torch.equal(first[name], second[name])
    assert first["decided"] == second["decided"] == 10.0


def wait_to_be_killed(folder: Path) -> None:
    """Say which process this is, then stay."""
    (folder / f"{rank()}.partial").write_text(str(os.getpid()))
    (folder / f"{rank()}.partial").rename(folder / str(rank()))
    time.sleep(300)


BACKGROUND = """
import signal, sys
from pathlib import Path
from benchmarks.scenes.training.parallel import run
from tests.benchmarks.scenes.test_parallel import wait_to_be_killed
signal.signal(signal.SIGINT, signal.SIG_IGN)
if __name__ == "__main__":
    run(wait_to_be_killed, 2, Path(sys.argv[1]))
"""


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(BACKGROUND)
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as parent:
        places = [tmp_path / "0", tmp_path / "1"]
        assert eventually(lambda: all(place.exists() for place in places))
        children = [int(place.read_text()) for place in places]
        assert all(alive(child) for child in children)
        parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: not any(alive(child) for child in children))


def eventually(holds: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether it comes to hold."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


def alive(process: int) -> bool:
    """Whether a process runs; one that ended but was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
