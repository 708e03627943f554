"""A real Ray head with token authentication, in its own processes and on its own ports, ended with its test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gazetteer.jobs.executors.ray.security import make_token
from tests.support.system.running import ROOT

FAKE_HEAD_NODE_ID = "f" * 51 + "00000"
"""What Ray calls the head of a cluster whose nodes are all on one machine."""


@dataclass(frozen=True)
class RayHead:
    """Where it listens, and the token file that opens it."""

    gcs: str
    dashboard: str
    metrics: str
    token: Path


@contextmanager
def ray_head() -> Iterator[RayHead]:
    """Start a head whose jobs find this checkout's `gazetteer`; the folder is short, for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gz", dir="/tmp"))
    token = folder / "token"
    make_token(token)
    program = folder / "bin" / "gazetteer"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gazetteer "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(ROOT),
        "PATH": f"{program.parent}:{os.environ['PATH']}", "RAY_metrics_report_interval_ms": "1000",
        "RAY_worker_niceness": "0", "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }  # fmt: skip
    try:
        # Ray gives its own processes half a minute to start, which a busy machine may need more than once.
        for attempt in range(4):
            process, head = _start(folder, token, environment, attempt)
            try:
                while process.poll() is None and not _ready(folder, head):
                    time.sleep(0.2)
                if process.poll() is None:
                    yield head
                    return
            finally:
                if process.poll() is not None:
                    print(f"The head ended with {process.returncode}: {(folder / 'log').read_text()}")
                _end(process)
        raise AssertionError((folder / "log").read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    folder: Path, token: Path, environment: dict[str, str], attempt: int
) -> tuple[subprocess.Popen[bytes], RayHead]:
    names = ("port", "dashboard-port", "metrics-export-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    scaling = folder / f"scaling-{attempt}.json"
    scaling.write_text(json.dumps(_scaling(f"127.0.0.1:{ports['port']}")))
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats",
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder / str(attempt)}",
        f"--autoscaling-config={scaling}",
        *(f"--{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
    metrics = f"http://127.0.0.1:{ports['metrics-export-port']}/metrics"
    return process, RayHead(f"127.0.0.1:{ports['port']}", dashboard, metrics, token)


def _scaling(gcs: str) -> dict[str, Any]:
    """Nodes that Ray's autoscaler may add when they are asked for: with the resource ``later``, on this machine."""
    kinds = {
        "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
        "later": {"resources": {"CPU": 1, "later": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    }
    steps = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "test", "max_workers": 1, "upscaling_speed": 1.0, "idle_timeout_minutes": 60,
        "head_node_type": "ray.head.default", "available_node_types": kinds,
        "provider": {"type": "fake_multinode", "head_node_id": FAKE_HEAD_NODE_ID, "gcs_address": gcs},
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        **{f"{step}_commands": [] for step in steps},
    }  # fmt: skip


def _ready(folder: Path, head: RayHead) -> bool:
    """Whether all of Ray's processes have come up, and the dashboard answers."""
    started = "Ray runtime started" in (folder / "log").read_text()
    return started and answer(head.dashboard + "/api/version", head.token) == 200


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answer(url: str, token: Path | None = None, body: bytes | None = None) -> int:
    """The HTTP status of a request, 0 when nobody answers."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token.read_text()}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return found
