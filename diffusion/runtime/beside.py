"""Work beside the models: in a few threads of a process, begun early and asked for later, in any order.

Threads only compute; nothing that they do depends on which of them does it or when, and what goes wrong is raised where
the result is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_pool: ThreadPoolExecutor | None = None


def use_helpers(count: int) -> None:
    """Let so many threads work beside the models of this process from now on; with 0 everything is done in turn."""
    global _pool
    if _pool is not None:
        _pool.shutdown(wait=False)
    _pool = ThreadPoolExecutor(count, "gazetteer-helper") if count else None
    if _pool is not None:  # all of them begin now, before a worker's memory is limited
        together = Barrier(count)
        for waiting in [_pool.submit(together.wait) for _ in range(count)]:
            waiting.result()


def begin(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
    """Begin `work` in a helper, and return what waits for its result and raises its error.

    Without helpers it is done when it is waited for. Begin no more at a time than may be held in memory.
    """
    if _pool is None:
        return partial(work, *args, **kwargs)
    return _pool.submit(work, *args, **kwargs).result
