"""Progress a person can follow: a bar on a terminal, one line per interval in a log (tools read `run_state`)."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO


class Progress:
    """Counts finished pictures with rate and remaining time.

    Args:
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
        self.bar = None
        if self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done, desc=label, unit="img", file=self.stream)

    def add(self, done: int, failed: int = 0) -> None:
        """Count pictures that were finished and pictures that failed."""
        self.done += done
        self.failed += failed
        if self.bar is not None:
            self.bar.update(done)
        now = time.monotonic()
        if now - self.last >= self.interval:
            self.last = now
            self._say()

    def close(self) -> None:
        """Say where things stand."""
        if self.bar is not None:
            self.bar.close()
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

    def _say(self) -> None:
        state = self.state()
        if self.bar is None:
            left = "" if state["seconds_left"] is None else f", about {state['seconds_left']:.0f} s left"
            failed = f", {self.failed} failed" if self.failed else ""
            rate = f"{state['images_per_second']:.2f} img/s"
            print(f"{self.label}: {self.done}/{self.total}{failed}, {rate}{left}", file=self.stream, flush=True)
