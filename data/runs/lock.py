"""Advisory locks on files that the kernel releases when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class FileLock:
    """An exclusive lock held through an open descriptor of `path`."""

    path: Path
    descriptor: int

    def release(self) -> None:
        """Let go; the file stays."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)

    def release_and_unlink(self) -> None:
        """Remove the file while still holding it (see `hold` for why that is safe), then let go."""
        self.path.unlink(missing_ok=True)
        self.release()


def hold(path: Path, *, wait: bool = True) -> FileLock:
    """Lock `path`, creating it; its folder must exist.

    Raises:
        BlockingIOError: `wait` is false and another process or descriptor holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _names(path, descriptor):
                return FileLock(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        # The former holder removed the file while we waited: a lock on an unlinked file excludes nobody.
        os.close(descriptor)


@contextmanager
def held_file(path: Path) -> Iterator[int]:
    """A new, locked file open for writing; yields the descriptor. FileExistsError when the name is taken."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _names(path, descriptor):
            break
        os.close(descriptor)  # a sweep came between open and flock; take the name again
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def release_dead(path: Path) -> None:
    """Remove `path` if nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _names(path, descriptor):
            path.unlink(missing_ok=True)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the open file."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
