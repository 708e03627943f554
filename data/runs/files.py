"""Whole files under one root, local or at a URL: read, replace atomically, or create once.

Nothing here streams to a final name: a reader sees a whole file or none, whatever dies when.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.runs.lock import held_file, hold, release_dead

STAGING = "_meta/staging"


class Files(Protocol):
    """The few operations a run folder needs; names are relative, with forward slashes."""

    root: str
    guards: bool
    """Whether `guard` keeps others out."""

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError when absent, GazetteerError when unreadable."""

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None when absent."""

    def names(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in `folder`; empty when it does not exist."""

    def replace(self, name: str, content: bytes) -> None:
        """Put `content` under `name`, atomically over whatever was there."""

    def create(self, name: str, content: bytes) -> bool:
        """Put `content` under `name` unless the name is taken; says whether it did."""

    def copy(self, name: str, to: str) -> None:
        """Put the content of `name` under `to`, atomically; FileNotFoundError when absent."""

    def remove(self, name: str) -> None:
        """Remove the file if it exists."""

    def remove_tree(self) -> None:
        """Remove every file under the root, and the root."""

    def guard(self, key: str) -> AbstractContextManager[None]:
        """Keep other processes out of the block with the same key, where the storage can."""

    def sweep(self) -> None:
        """Remove what killed writers left behind; live writers are not disturbed."""

    def source(self, name: str) -> Any:
        """What pyarrow can open to read the file: a path or a file object."""

    def free(self) -> int | None:
        """Bytes that can still be written, where that is known."""


@contextmanager
def write_errors(path: str) -> Iterator[None]:
    """Turn an OSError of a write into one sentence (GazetteerError) that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            message = f"No space left on {path}; free some and run the same command again: it resumes."
        else:
            reason = error.strerror or str(error)
            message = f"Cannot write {path} ({reason}); put that right and run the same command again: it resumes."
        raise GazetteerError(message) from error


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn the refusal of a read into a sentence (GazetteerError); FileNotFoundError stays itself."""
    try:
        yield
    except NotADirectoryError as error:
        raise FileNotFoundError(str(path)) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise GazetteerError(f"Cannot read {path} ({error.strerror or error}).") from error


class LocalFiles:
    """Files on a POSIX filesystem, durable: contents and folder entries are fsynced before a name counts."""

    guards = True

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._path = root

    def _at(self, name: str) -> Path:
        return self._path / name

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError when absent."""
        with _read_errors(self._at(name)):
            return self._at(name).read_bytes()

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None when absent."""
        with suppress(FileNotFoundError), _read_errors(self._at(name)):
            return self._at(name).stat().st_size
        return None

    def names(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in `folder`."""
        with suppress(FileNotFoundError), _read_errors(self._at(folder)), os.scandir(self._at(folder)) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
        return []

    def replace(self, name: str, content: bytes) -> None:
        """Write a file atomically, over whatever was there."""
        with write_errors(str(self._at(name))), self._staged(name, content) as staged:
            os.replace(staged, self._at(name))
            _fsync_folder(self._at(name).parent)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless the name is taken; says whether it did."""
        with write_errors(str(self._at(name))), self._staged(name, content) as staged:
            try:
                os.link(staged, self._at(name))
            except FileExistsError:
                return False
            except OSError as error:
                # Some network and FUSE mounts have no hard links: fall back to check-and-rename under a lock.
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise
                with self.guard("create"):
                    if self._at(name).exists():
                        return False
                    os.replace(staged, self._at(name))
            _fsync_folder(self._at(name).parent)
            return True

    def copy(self, name: str, to: str) -> None:
        """Put the content of `name` under `to`."""
        self.replace(to, self.read(name))

    def remove(self, name: str) -> None:
        """Remove the file if it exists."""
        with write_errors(str(self._at(name))):
            self._at(name).unlink(missing_ok=True)

    def remove_tree(self) -> None:
        """Remove every file under the root, and the root."""
        with write_errors(self.root):
            shutil.rmtree(self._path)

    @contextmanager
    def guard(self, key: str) -> Iterator[None]:
        """Keep holders of the same key out of the block; freed when the holder dies."""
        with write_errors(str(self._at(STAGING))):
            make_folder(self._at(STAGING))
            lock = hold(self._at(STAGING) / f"{key}.lock")
        try:
            yield
        finally:
            lock.release_and_unlink()

    def sweep(self) -> None:
        """Remove staged files and locks whose writers are dead."""
        for name in self.names(STAGING):
            release_dead(self._at(STAGING) / name)

    def source(self, name: str) -> str:
        """What pyarrow can open to read the file."""
        return str(self._at(name))

    def free(self) -> int | None:
        """Bytes that can still be written; None when nothing is there yet."""
        with suppress(OSError):
            return shutil.disk_usage(self._path).free
        return None

    @contextmanager
    def _staged(self, name: str, content: bytes) -> Iterator[Path]:
        """A fsynced file with `content` on the same filesystem, gone afterwards unless it was renamed."""
        make_folder(self._at(name).parent)
        make_folder(self._at(STAGING))
        staged = self._at(STAGING) / f"{Path(name).name}.{uuid.uuid4().hex}"
        # The writer holds a lock on its staged file, so that `sweep` can tell a live one from a dead one's.
        with held_file(staged) as descriptor:
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
                yield staged
            finally:
                staged.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each durable in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # filesystems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)
