"""Ends what a private Ray leaves behind when the process that started it is gone; run as a program of its own.

Ray's processes end with their driver by themselves, but its agents only after a minute, and not at all when the raylet
above them hangs. This one waits for the end of its standard input, which comes with the driver's death however it
died, and then ends whatever the processes that it was told of, and those that they started, did not end themselves.
Imports nothing but the standard library, so that it costs a few megabytes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time

INTERVAL = 2.0
"""Seconds between two looks at the processes below those that it was told of."""
GRACE = 4.0
"""Seconds that they have to end by themselves."""


def main() -> None:
    """Read one line of JSON, ``{"processes": [pid, …], "folder": path}``; wait for the end of the input; clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    order = json.loads(sys.stdin.buffer.readline())
    family = {pid: start for pid in order["processes"] if (start := started(pid)) is not None}
    while True:
        family |= below(family)
        if select.select([sys.stdin], [], [], INTERVAL)[0]:
            break
    family |= below(family)
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(started(pid) == start for pid, start in family.items()):
        time.sleep(0.05)
    for pid, start in family.items():
        if started(pid) == start:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
    shutil.rmtree(order["folder"], ignore_errors=True)


def below(family: dict[int, str]) -> dict[int, str]:
    """The processes that those of `family` started, and theirs, each with its start time."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit() and (fields := _fields(int(name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(name))
    processes: dict[int, str] = {}
    todo = [pid for pid, start in family.items() if started(pid) == start]
    while todo:
        for pid in children.get(todo.pop(), ()):
            start = started(pid)
            if start is not None and pid not in processes:
                processes[pid] = start
                todo.append(pid)
    return processes


def started(pid: int) -> str | None:
    """When a living process started, which tells it from another that got its number; None: it is gone."""
    fields = _fields(pid)
    return None if fields is None or fields[0] == "Z" else fields[19]


def state(pid: int) -> str:
    """What the kernel calls the state of a process: ``T`` is stopped, ``Z`` dead, empty gone."""
    fields = _fields(pid)
    return fields[0] if fields else ""


def _fields(pid: int) -> list[str] | None:
    """``/proc/PID/stat`` from the state on."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


if __name__ == "__main__":
    main()
