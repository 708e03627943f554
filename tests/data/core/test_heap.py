"""Freed memory that a process keeps to itself for a while."""

import ctypes

import numpy as np
import pytest

from gazetteer.data.core import heap

LARGE = 2**26  # bytes; glibc never keeps so much of its own accord


class Held(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


def in_use() -> Held:
    """What the C library holds now."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Held
    return ask()


def test_large_arrays_come_from_kept_memory_inside_and_from_the_system_outside() -> None:
    mapped = in_use().hblkhd
    with heap.freed_memory_kept():
        array = np.ones(LARGE, np.uint8)
        assert in_use().hblkhd == mapped
        del array
        assert in_use().fordblks >= LARGE  # free, and kept
        array = np.full(LARGE, 3, np.uint8)
    assert in_use().fordblks < LARGE  # given back; what is in use stays
    assert (array == 3).all()
    outside = np.ones(LARGE, np.uint8)
    assert in_use().hblkhd >= mapped + outside.nbytes


@heap.freed_memory_kept()
def broken() -> None:
    """Fails at work that took memory."""
    np.ones(LARGE, np.uint8)
    raise ZeroDivisionError


def test_memory_is_given_back_when_the_work_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        broken()
    assert in_use().fordblks < LARGE


def test_a_system_without_glibc_works_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        """A C library that knows nothing of this."""

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: Musl())
    with heap.freed_memory_kept():
        assert np.ones(LARGE, np.uint8).all()
