"""Out of memory: told from other errors, and answered with the batch size to try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gazetteer.data.core.errors import GazetteerError


@contextmanager
def enough_memory(doing: str, key: str, size: int, hint: str) -> Iterator[None]:
    """Turn an allocation that failed inside, on any device, into one sentence.

    doing: what took the memory; key, size: the configuration key of its batch size, and how many went at once;
    hint: what to try when they already go one by one.

    Raises:
        GazetteerError: out of memory; no retry of an item would help.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        advice = f"{key}={size // 2}" if size > 1 else hint
        raise GazetteerError(f"Out of memory while {doing} ({size} at once); try {advice}.") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: CUDA and XPU have a class for it, the CPU and MPS only a message."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
