"""Advisory locks on files that the kernel releases when their holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gazetteer.data.core.files.atomic import write_errors

_WITHOUT = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class NoLocksError(OSError):
    """The file system has no locks, as some network ones have not (Lustre without -o flock, some NFS)."""


@dataclass
class FileLock:
    """An exclusive lock held through an open descriptor of `path`."""

    path: Path
    descriptor: int

    def release(self) -> None:
        """Let go; the file stays."""
        os.close(self.descriptor)  # and with its last descriptor the lock goes

    def release_and_unlink(self) -> None:
        """Remove the file while still holding it (see `hold` for why that is safe), then let go."""
        self.path.unlink(missing_ok=True)
        self.release()


def hold(path: Path, *, wait: bool = True) -> FileLock:
    """Lock `path`, creating it; its folder must exist.

    Raises:
        BlockingIOError: `wait` is false and another process or descriptor holds it.
        NoLocksError: the file system has no locks; the file may be there all the same.
        OSError: a link, or no regular file, lies at `path`.
    """
    while True:
        # A link is not followed: what it leads to is somebody else's.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            _flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _names(path, descriptor):
                return FileLock(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        # The former holder removed the file while we waited: a lock on an unlinked file excludes nobody.
        os.close(descriptor)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep others who come here with the same `path` out of a block, in which something is read, joined and written.

    They wait; where the file system has no locks, nobody is kept out. The file is there for as long alone.

    Raises:
        GazetteerError: its folder cannot be made or written into.
    """
    lock = None
    with write_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = hold(path)
        except NoLocksError:
            path.unlink(missing_ok=True)
    try:
        yield
    finally:
        if lock is not None:
            lock.release_and_unlink()


@contextmanager
def held_file(path: Path) -> Iterator[tuple[int, bool]]:
    """A new file open for writing, locked where the file system has locks; yields the descriptor and whether it is.

    FileExistsError when the name is taken.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        locked = True
        try:
            _flock(descriptor, fcntl.LOCK_EX)
        except NoLocksError:
            locked = False
        except BaseException:
            os.close(descriptor)
            raise
        if _names(path, descriptor):
            break
        os.close(descriptor)  # a sweep came between open and flock; take the name again
    try:
        yield descriptor, locked
    finally:
        os.close(descriptor)


def release_dead(path: Path) -> None:
    """Remove the regular file `path` if nobody holds it; without locks nobody can know, and it stays."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and _names(path, descriptor):
            path.unlink(missing_ok=True)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _flock(descriptor: int, operation: int) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _WITHOUT:
            raise NoLocksError(error.errno, "the file system has no locks") from error
        raise


def _names(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the open file."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (here.st_dev, here.st_ino)
