"""Freed memory that a process keeps to itself for a while."""

import subprocess
import sys

import numpy as np
import pytest

from gazetteer.data.core import heap

LARGE = 2**26  # bytes; glibc never keeps so much of its own accord

HELD = """
import ctypes, sys
import numpy as np
from gazetteer.data.core.heap import freed_memory_kept

LARGE = int(sys.argv[1])
NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()


class Held(ctypes.Structure):  # struct mallinfo2 of glibc's malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def in_use():
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Held
    return ask()

"""


def alone(code: str) -> None:
    """Run code in a process of its own: a heap with a history holds free memory in places that nothing gives back."""
    done = subprocess.run([sys.executable, "-c", HELD + code, str(LARGE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_large_arrays_come_from_kept_memory_inside_and_from_the_system_outside() -> None:
    alone("""
mapped = in_use().hblkhd
with freed_memory_kept():
    array = np.ones(LARGE, np.uint8)
    assert in_use().hblkhd == mapped
    del array
    assert in_use().fordblks >= LARGE  # free, and kept
    array = np.full(LARGE, 3, np.uint8)
assert in_use().fordblks < LARGE  # given back; what is in use stays
assert (array == 3).all()
outside = np.ones(LARGE, np.uint8)
assert in_use().hblkhd >= mapped + outside.nbytes
""")


def test_memory_is_given_back_when_the_work_fails() -> None:
    alone("""
try:
    with freed_memory_kept():
        np.ones(LARGE, np.uint8)
        assert in_use().fordblks >= LARGE
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
assert in_use().fordblks < LARGE
""")


def test_a_system_without_glibc_works_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        """A C library that knows nothing of this."""

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: Musl())
    with heap.freed_memory_kept():
        assert np.ones(LARGE, np.uint8).all()
