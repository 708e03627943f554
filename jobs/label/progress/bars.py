"""Progress a person can follow: a bar on a terminal, one line an interval in a log (tools read `run_state`)."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO


class Progress:
    """Counts finished pictures, with rate, failures and remaining time; a context manager that says how it ended.

    Args:
        label: of the stage.
        total: pictures of the whole run; `done` of them were there before.
        interval: seconds between lines when the stream is not a terminal.
    """

    def __init__(
        self,
        label: str,
        total: int,
        done: int = 0,
        *,
        stream: TextIO | None = None,
        interval: float = 10.0,
    ) -> None:
        self.label, self.total, self.done, self.before = label, total, done, done
        self.failed = 0
        self.interval = interval
        self.stream = stream or sys.stderr
        self.start = self.last = time.monotonic()
        self._said: str | None = None
        self._bar = _Bar(self) if self.stream.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, done: int, failed: int = 0) -> None:
        """Count pictures that were finished and pictures that failed."""
        self.done += done
        self.failed += failed
        if self._bar is not None:
            self._bar.show()
        elif time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            self._say()

    def close(self) -> None:
        """Say where things stand, unless that was the last thing said."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._say()

    def state(self) -> dict[str, Any]:
        """done, failed, total, pictures per second since the start, and seconds left (None when unknown)."""
        rate = (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)
        left = (self.total - self.done - self.failed) / rate if rate > 0 else None
        return {
            "stage": self.label,
            "done": self.done,
            "failed": self.failed,
            "total": self.total,
            "images_per_second": round(rate, 3),
            "seconds_left": None if left is None else round(left, 1),
        }

    def tail(self) -> str:
        """Failures, rate and remaining time in words."""
        state = self.state()
        left = "" if state["seconds_left"] is None else f", about {state['seconds_left']:.0f} s left"
        failed = f"{self.failed} failed, " if self.failed else ""
        return f"{failed}{state['images_per_second']:.2f} img/s{left}"

    def _say(self) -> None:
        counts = f"{self.label}: {self.done}/{self.total}, {self.failed}"
        if counts != self._said:
            self._said = counts
            print(f"{self.label}: {self.done}/{self.total}, {self.tail()}", file=self.stream, flush=True)


class _Bar:
    """A bar that rich draws over and over in place; lines that are printed meanwhile stand above it."""

    def __init__(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        self._progress = progress
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[tail]}"),
        )
        self._bars = Bars(*columns, console=Console(file=progress.stream))
        self._task = self._bars.add_task(progress.label, total=progress.total, completed=progress.done, tail="")
        self._bars.start()

    def show(self) -> None:
        """Draw what the progress has counted."""
        now = self._progress
        self._bars.update(self._task, completed=now.done + now.failed, total=now.total, tail=now.tail())

    def close(self) -> None:
        """Draw it a last time, and leave it there."""
        self.show()
        self._bars.stop()
