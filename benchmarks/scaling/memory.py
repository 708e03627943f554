"""The most memory that a piece of work holds, in a process of its own."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any


def measured(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What `work` returned, CPU seconds, and GB at most beyond what its process began with.

    The process is forked: it begins with what this one has imported, and the sum of what it touches is its own.
    """
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_report, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    result: dict[str, Any] = ours.recv()
    process.join()
    return result


def _report(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")  # the peak begins here
    before = _resident()
    start = time.process_time()
    value = work(*arguments)
    peak = _peak()
    spent = time.process_time() - start
    pipe.send({"value": value, "cpu_s": spent, "gb": max(0.0, peak - before) / 1e9})
    pipe.close()
    os._exit(0)


def _resident() -> int:
    with open("/proc/self/statm") as status:
        return int(status.read().split()[1]) * resource.getpagesize()


def _peak() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
