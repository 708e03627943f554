"""SIGKILL before every single call that changes the disk, one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any


class Killer:
    """Counts the calls that change the disk and dies before the chosen one, or half-way through a write."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.calls == self.at:
                if name in ("write", "write_bytes"):  # a torn write
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            self.calls += 1
            return real(*args, **kwargs)

        setattr(owner, name, call)


def killed_everywhere(calls: Iterable[tuple[Any, str]], work: Callable[[int], None]) -> int:
    """`work(0)` killed before its first call, `work(1)` before its second, …, until one ends; its number."""
    at = 0
    while True:
        child = os.fork()
        if child == 0:
            killer = Killer(at)
            for owner, name in calls:
                killer.wrap(owner, name)
            work(at)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            return at
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        at += 1
