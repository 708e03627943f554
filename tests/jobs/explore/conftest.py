"""One server for all tests of the page: the real command, on a copy of the small run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.system.running import ROOT

PROMPT = {"prompt": "a dog on the grass, the sky", "seed": 3}
PATIENCE = 600
"""Seconds for an answer, which a server on a busy machine needs for its first ones; nobody waits longer than that."""


@dataclass(frozen=True)
class Explored:
    """A running `gazetteer explore`: its process, its run, and the address and token that it printed."""

    process: subprocess.Popen[str]
    run: Path
    base: str
    token: str

    def ask(
        self, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, content (JSON where it is) and headers of an answer; a body makes it a POST."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"x-gazetteer-token": self.token if token is None else token, "content-type": "application/json"}
        request = urllib.request.Request(self.base + path, content, {**given, **headers})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, _plain(answer.read()), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, _plain(error.read()), dict(error.headers)

    def settle(self, *threads: str) -> None:
        """Wait until what runs beside the server is through: the ``atlas`` that is written, the ``layout`` fitted."""
        asked = {"atlas": "/data/atlas.js", "layout": "/api/layout"}
        for thread in threads or asked:
            assert self.ask(asked[thread])[0] == 200

    def stop(self, number: int) -> tuple[int, str]:
        """Exit code and last words after a signal, once it is at rest."""
        self.settle()
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


def _plain(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()


@contextmanager
def exploring(run: Path, *options: str) -> Iterator[Explored]:
    command = [
        sys.executable,
        "-m",
        "gazetteer",
        "explore",
        str(run),
        "--no-browser",
        "--json",
        "--port",
        "0",
        *options,
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said = json.loads(line)
            yield Explored(process, run, f"http://127.0.0.1:{said['port']}", said["token"])
        finally:
            process.kill()


@pytest.fixture(scope="session")
def explored(scenes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    run = tmp_path_factory.mktemp("explored") / "run"
    shutil.copytree(scenes_run, run)
    with exploring(run) as server:
        yield server
        code, said = server.stop(signal.SIGTERM)
        assert (code, said.splitlines()[-1]) == (143, "gazetteer: stopped.")
