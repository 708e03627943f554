"""Watch over the Ray of this process: that it was lost becomes a sentence; a private one never outlives us."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from gazetteer.data.core.errors import GazetteerError
from gazetteer.jobs.executors.ray import reaper

LOOK = 1.0
"""Seconds between two looks at Ray's processes."""
FROZEN = 10
"""Looks in a row that find a process stopped, after which it counts as lost."""
GRACE = 15.0
"""Seconds that the thread which uses Ray has to notice: Ray's own code may wait for a dead process without end."""
SILENT = 30.0
"""Seconds for which the control store of a named cluster may not answer; one that is restarted is back by then."""
FAILED = 1
GONE = "The private Ray of this run was lost:"

LastWords = Callable[[str], None]


def say(problem: str) -> None:
    """The last words of a process that has nothing else to say them with."""
    print(f"gazetteer: {problem}", file=sys.stderr, flush=True)


class _Watch(ABC):
    """What both watches do when Ray is lost."""

    def __init__(self, last_words: LastWords) -> None:
        self.problem: str | None = None
        self._last_words = last_words
        self._closed = threading.Event()

    def begin(self) -> None:
        """Look from now on, in a thread of its own."""
        threading.Thread(target=self._look, name="watch over Ray", daemon=True).start()

    def check(self) -> None:
        """Raises GazetteerError when Ray was lost."""
        if self.problem is not None:
            raise GazetteerError(self.problem)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    @abstractmethod
    def _look(self) -> None:
        """Look until closed; call `_lost` when Ray is gone."""

    def _lost(self, problem: str) -> None:
        self.problem = f"{problem} Run the same command again: it resumes."
        if not self._closed.wait(GRACE):
            self._last_words(self.problem)
            os._exit(FAILED)


class ClusterWatch(_Watch):
    """Asks, in a thread of its own, whether the control store of a named cluster still answers.

    Ray itself would wait for it for minutes, and then end this process with a dump.

    Args:
        address: ``host:port`` of the control store (GCS).
        last_words: as of `ProcessWatch`.
    """

    def __init__(self, address: str, last_words: LastWords) -> None:
        super().__init__(last_words)
        self._address = address
        self.begin()

    def _look(self) -> None:
        host, _, port = self._address.rpartition(":")
        heard = time.monotonic()
        while not self._closed.wait(LOOK):
            with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=SILENT):
                heard = time.monotonic()
            if time.monotonic() - heard >= SILENT:
                said = f"The Ray cluster at {self._address} was lost: its control store (GCS) has not answered for"
                return self._lost(f"{said} {SILENT:.0f} seconds.")


class ProcessWatch(_Watch):
    """Looks after Ray's processes in a thread of its own, and after our own death through another process.

    Args:
        processes: Ray's own, by name.
        folder: their temporary files; removed when Ray has ended.
        last_words: told what happened when this process cannot go on and ends on the spot, with exit code 1.
    """

    def __init__(self, processes: Mapping[str, int], folder: str, last_words: LastWords) -> None:
        super().__init__(last_words)
        self._processes = dict(processes)
        command = [sys.executable, "-I", "-S", str(Path(reaper.__file__))]
        self._reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert self._reaper.stdin is not None
        order = json.dumps({"processes": list(self._processes.values()), "folder": folder})
        self._reaper.stdin.write(order.encode() + b"\n")
        self._reaper.stdin.flush()
        self.begin()

    def close(self) -> None:
        """Stop watching, and see that everything of Ray's has ended."""
        super().close()
        assert self._reaper.stdin is not None
        with suppress(OSError):
            self._reaper.stdin.close()
        self._reaper.wait()

    def _look(self) -> None:
        stopped = dict.fromkeys(self._processes, 0)
        while not self._closed.wait(LOOK):
            for name, pid in self._processes.items():
                state = reaper.state(pid)
                stopped[name] = stopped[name] + 1 if state in ("T", "t") else 0
                if state in ("", "Z"):
                    return self._lost(f"{GONE} its {name} has ended (killed by hand, or for memory?).")
                if stopped[name] >= FROZEN:
                    with suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                    return self._lost(f"{GONE} its {name} was stopped and did not go on.")
