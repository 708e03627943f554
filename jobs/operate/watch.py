"""Look at a run from outside while it goes on: its status, again and again, until there is nothing left to wait for."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.operate.status import print_status, status

ENDED = frozenset({"complete", "stopped", "failed", "silent"})
"""States from which a run does not go on by itself."""


def watch(
    run: str | os.PathLike[str], interval: float = 2.0, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Show a run's status until it ends; nothing is written and no lock is taken.

    In a terminal the status is drawn in place; elsewhere one line an interval, and none twice.

    Args:
        interval: seconds between two looks.
        sleep: waits that long.

    Returns:
        the last `status`.

    Raises:
        InputError: there is no run, or the interval is not a positive number.
    """
    if not 0 < interval < float("inf"):
        raise InputError(f"--interval must be a positive number of seconds, not {interval}.")
    show = _in_place() if sys.stdout.isatty() else _lines()
    while True:
        state = status(run)
        show(state)
        if state["state"] in ENDED:
            return state
        sleep(interval)


def line(state: dict[str, Any]) -> str:
    """A status in one line."""
    shards, images = state["shards"], state["images"]
    parts = [state["state"] if not state["stage"] else f"{state['state']} ({state['stage']})"]
    parts.append(f"{shards['done']} of {_known(shards['total'])} shards")
    parts.append(f"{_known(images['done'])} of {_known(images['total'])} pictures")
    if images["failed"]:
        parts.append(f"{images['failed']} failed")
    if state["images_per_second"] is not None:
        parts.append(f"{state['images_per_second']:.2f} pictures/s")
    if state["seconds_left"] is not None:
        parts.append(f"about {state['seconds_left']:.0f} s left")
    return f"{state['run']}: " + ", ".join(parts)


def _lines() -> Callable[[dict[str, Any]], None]:
    said = ""

    def show(state: dict[str, Any]) -> None:
        nonlocal said
        text = line(state)
        if text != said:
            print(text, flush=True)
        said = text

    return show


def _in_place() -> Callable[[dict[str, Any]], None]:
    from rich.console import Console
    from rich.control import Control
    from rich.segment import ControlType

    console, height = Console(), 0

    def show(state: dict[str, Any]) -> None:
        nonlocal height
        text = io.StringIO()
        with redirect_stdout(text):
            print_status(state)
        for _ in range(height):
            console.control(Control.move(0, -1), Control((ControlType.ERASE_IN_LINE, 2)))  # one line up, and clear it
        console.print(text.getvalue(), end="", markup=False, highlight=False, soft_wrap=False, overflow="ellipsis")
        height = text.getvalue().count("\n")

    return show


def _known(value: Any) -> str:
    return "?" if value is None else str(value)
