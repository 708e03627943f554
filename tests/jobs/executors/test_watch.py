"""A named cluster whose control store falls silent ends a run with one sentence, whatever Ray itself waits for."""

from __future__ import annotations

import subprocess
import sys

from tests.support.system.running import ROOT

SCRIPT = """
import socket, sys, threading
from gazetteer.jobs.executors.ray import watch

watch.LOOK, watch.SILENT, watch.GRACE = 0.02, 0.5, float(sys.argv[1])
store = socket.create_server(("127.0.0.1", 0))
over_it = watch.ClusterWatch(f"127.0.0.1:{store.getsockname()[1]}", watch.say)
for _ in range(5):
    store.accept()[0].close()
    over_it.check()
store.close()
never = threading.Event()
while not never.wait(0.02):
    if sys.argv[1] != "0":
        try:
            over_it.check()
        except Exception as error:
            over_it.close()
            sys.exit(f"told: {error}")
"""


def ended(grace: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, grace]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_who_asks_is_told() -> None:
    done = ended("60")
    assert done.returncode == 1
    assert "told: The Ray cluster at 127.0.0.1:" in done.stderr and "run the same command again" in done.stderr.lower()


def test_who_waits_for_ray_without_end_is_ended() -> None:
    done = ended("0")
    assert done.returncode == 1
    assert done.stderr.startswith("gazetteer: The Ray cluster at 127.0.0.1:") and len(done.stderr.splitlines()) == 1
