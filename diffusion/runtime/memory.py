"""Out of memory: told from other errors, answered with smaller batches, and when they are one with what to try."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from gazetteer.data.core.errors import GazetteerError
from gazetteer.diffusion.runtime.beside import begin

P = TypeVar("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


class OutOfMemory(GazetteerError):
    """An allocation failed on some device; no retry of an item at the same batch size would help."""


class FittingBatch:
    """How many items a model takes at once: as many as are configured, and half of it each time that was too much.

    What was found out is kept, so that a worker runs out of memory once and not at every batch, and said once, since
    with batches of other sizes results differ in their last bits.

    Attributes:
        size: items at once from here on; 0: all there are.
    """

    def __init__(self, doing: str, key: str, size: int, hint: str) -> None:
        """Arguments as of `enough_memory`; size 0 for no limit."""
        self.doing, self.key, self.size, self.hint = doing, key, size, hint

    def over(self, count: int, call: Callable[[slice], R]) -> Iterator[R]:
        """What `call` gives for every consecutive part of `count` items, each as large as fits.

        `call` may be tried again with the first half of a part, so what it does beside giving a result must bear that.

        Raises:
            OutOfMemory: a single item does not fit.
        """
        yield from self.prepared(count, lambda part: None, lambda part, _: call(part))

    def prepared(self, count: int, prepare: Callable[[slice], P], call: Callable[[slice, P], R]) -> Iterator[R]:
        """`over`, where `call` is also given what `prepare` makes of its part, in a helper, while the one before runs.

        Raises: as `over`, and what `prepare` raises.
        """
        start, ahead = 0, list[tuple[slice, Callable[[], P]]]()

        def work(part: slice) -> R:
            ready = ahead.pop()[1] if ahead and ahead[0][0] == part else begin(prepare, part)
            ahead.clear()  # what was begun for a larger part
            given, after = ready(), self._part(part.stop, count)
            if after.start < after.stop:
                ahead.append((after, begin(prepare, after)))
            return call(part, given)

        while start < count:
            part = self._part(start, count)
            made = self._tried(part, work)
            if made is not None:
                yield made[0]
                start = part.stop

    def _part(self, start: int, count: int) -> slice:
        return slice(start, min(start + self.size, count) if self.size else count)

    def _tried(self, part: slice, call: Callable[[slice], R]) -> tuple[R] | None:
        """The result, or None where the part was too large and the next one will be smaller."""
        items = part.stop - part.start
        try:
            with enough_memory(self.doing, self.key, items, self.hint):
                return (call(part),)
        except OutOfMemory:
            if items == 1:
                raise
        # What was held is let go here: the error above kept the frames, and the tensors in them.
        self.size = items // 2
        free_memory()
        log.warning(
            "Out of memory while %s, %d at once; a worker goes on with %s=%d.", self.doing, items, self.key, self.size
        )
        return None


@contextmanager
def enough_memory(doing: str, key: str, size: int, hint: str) -> Iterator[None]:
    """Turn an allocation that failed inside, on any device, into one sentence.

    doing: what took the memory; key, size: the configuration key of its batch size, and how many went at once;
    hint: what to try when they already go one by one.

    Raises:
        OutOfMemory: at that batch size.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        advice = f"{key}={size // 2}" if size > 1 else hint
        raise OutOfMemory(f"Out of memory while {doing} ({size} at once); try {advice}.") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: CUDA and XPU have a class for it, the CPU and MPS only a message."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def free_memory() -> None:
    """Give back what nobody holds: of this process, and of the cache of its CUDA devices."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
