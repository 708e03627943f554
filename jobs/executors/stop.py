"""Being asked to end, by SIGTERM or Ctrl-C: an exception that no library can swallow for good."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """Asked to end by a person or a scheduler; what was done stays, and a later command goes on from there.

    Attributes:
        signal: its number; a shell calls that exit code 128 + signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


AGAIN = 5.0
"""Seconds within which a second SIGTERM is taken for the first, and does not disturb the cleaning up."""
_asked = 0
_when = 0.0


@contextmanager
def stopping() -> Iterator[None]:
    """While open, SIGTERM (of systemd, Slurm, Kubernetes) and SIGINT raise `Stopped` in the main thread.

    One that arrives inside a finaliser (``__del__``) is printed and forgotten by Python; `check_stop` raises it again.
    """
    global _asked
    _asked = 0
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, _end)
    try:
        yield
    except KeyboardInterrupt as error:
        if _asked and not isinstance(error, Stopped):  # what Ray's compiled waits make of any exception of a handler
            raise Stopped(_asked) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked = 0


def check_stop() -> None:
    """Raises `Stopped` when this process was asked to end and has not done so; for loops that go on for long."""
    if _asked:
        raise Stopped(_asked)


def _end(number: int, _: object) -> None:
    global _asked, _when
    repeated = _asked == number == signal.SIGTERM and time.monotonic() - _when < AGAIN
    if repeated:
        return
    _asked, _when = number, time.monotonic()
    raise Stopped(number)
