"""What the C library does with freed memory while arrays come and go."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h of glibc; elsewhere there is no `mallopt`, or other numbers mean other things.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP, _USUAL = (2**31 - 1, 2**30), (2**26, 2**25)
"""Bytes for the two: to give nothing back, and what glibc itself arrives at once an array of 32 MB was freed."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Freed memory is used again by this process inside, and given back to the system at the end.

    glibc maps every array above 32 MB anew and unmaps it when it is freed, and the kernel fills each page of it with
    zeros at its first touch, which many short-lived arrays pay over and over. Without glibc, and in threads other than
    the main one, which have small heaps of their own, nothing changes.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, _KEEP)
    try:
        yield
    finally:
        _set(libc, _USUAL)
        libc.malloc_trim(ctypes.c_size_t(0))


def _set(libc: ctypes.CDLL, sizes: tuple[int, int]) -> None:
    for name, size in zip((_TRIM_THRESHOLD, _MMAP_THRESHOLD), sizes, strict=True):
        libc.mallopt(name, size)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return None
    return libc
