"""Whole files below a local folder, durable, and nowhere else: no linked sub-folder is followed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.files.atomic import write_errors
from gazetteer.data.core.files.regular import read_regular, require_regular
from gazetteer.data.storage.files import MADE_OF, STAGING
from gazetteer.data.storage.lock import NoLocksError, held_file, hold, release_dead

_STAGED = re.compile(r".+\.[0-9a-f]{32}|.+\.lock")
"""What `LocalFiles` itself puts into the staging folder; it removes nothing else there."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


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

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._path = root
        self._locks = True

    @property
    def guards(self) -> bool:
        """Whether the file system has locks; presumed until one was wanted."""
        return self._locks

    def _at(self, name: str) -> Path:
        """Where a name lies; InputError when a folder on the way is a link, which may lead out of the run."""
        place = self._path
        *folders, last = name.split("/")
        for folder in folders:
            place = place / folder
            if place.is_symlink():
                raise InputError(
                    f"{place} is a link; a run is read and written in its own folders only: put the folder itself "
                    "there."
                )
        return place / last

    def _folder(self, name: str) -> Path:
        return self._at(f"{name}/x").parent if name else self._path

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError when absent, InputError for what is no regular file."""
        with _read_errors(self._at(name)):
            return read_regular(self._at(name))

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None when absent; 0 for a link that leads nowhere."""
        with suppress(FileNotFoundError), _read_errors(self._at(name)):
            path = self._at(name)
            return 0 if path.is_symlink() and not path.exists() else path.stat().st_size
        return None

    def names(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in `folder`."""
        return self._entries(folder, files=True)

    def folders(self, folder: str) -> list[str]:
        """Sorted base names of what else lies directly in `folder`."""
        return self._entries(folder, files=False)

    def _entries(self, folder: str, files: bool) -> list[str]:
        place = self._folder(folder)
        with suppress(FileNotFoundError), _read_errors(place), os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if _is_file(entry) == files)
        return []

    def replace(self, name: str, content: bytes) -> None:
        """Write a file atomically, over whatever was there."""
        with write_errors(str(self._at(name)), resumes=True), self._staged(name, content) as staged:
            os.replace(staged, self._at(name))
            _fsync_folder(self._at(name).parent)

    def move(self, name: str, to: str) -> None:
        """Rename a file over whatever was there; durable with the next `create` that is told of it."""
        if not os.path.lexists(self._at(name)):
            raise FileNotFoundError(name)
        with write_errors(str(self._at(to)), resumes=True):
            make_folder(self._at(to).parent)
            os.replace(self._at(name), self._at(to))

    def create(self, name: str, content: bytes, after: Sequence[str] = ()) -> bool:
        """Write a file unless the name is taken; says whether it did.

        The folders of `after` are synced while the content is: a journal takes them all in one go.
        """
        earlier = sorted({self._at(folder).parent for folder in after})
        with write_errors(str(self._at(name)), resumes=True), self._staged(name, content, earlier) as staged:
            try:
                os.link(staged, self._at(name))
            except FileExistsError:
                return False
            except OSError as error:
                # Some network and FUSE mounts have no hard links: fall back to check-and-rename under a lock.
                if error.errno not in _NO_LINKS:
                    raise
                with self.guard("create"):
                    if not self._locks:
                        raise GazetteerError(
                            f"{self.root} lies on a file system without locks and without hard links, where nothing "
                            "can be written exactly once; choose another folder."
                        ) from error
                    if os.path.lexists(self._at(name)):
                        return False
                    os.replace(staged, self._at(name))
            _fsync_folder(self._at(name).parent)
            return True

    def copy(self, name: str, to: str) -> None:
        """Put the content of `name` under `to`."""
        self.replace(to, self.read(name))

    def remove(self, name: str) -> None:
        """Remove the file if it exists."""
        with write_errors(str(self._at(name)), resumes=True):
            self._at(name).unlink(missing_ok=True)

    def remove_tree(self) -> None:
        """Remove every file under the root, and the root; links below it are removed, not followed.

        Stopped on the way, it leaves what is known for a run, so that the rest is found.
        """
        with write_errors(self.root, resumes=True):
            _remove(self._path, MADE_OF)

    @contextmanager
    def guard(self, key: str) -> Iterator[None]:
        """Keep holders of the same key out of the block; freed when the holder dies. Guards nothing without locks."""
        staging = self._folder(STAGING)
        lock = None
        with write_errors(str(staging), resumes=True):
            make_folder(staging)
            if self._locks:
                try:
                    lock = hold(staging / f"{key}.lock")
                except NoLocksError:
                    self._locks = False
                    (staging / f"{key}.lock").unlink(missing_ok=True)
        try:
            yield
        finally:
            if lock is not None:
                lock.release_and_unlink()

    def sweep(self) -> None:
        """Remove staged files and locks whose writers are dead."""
        for name in self.names(STAGING):
            if _STAGED.fullmatch(name):
                release_dead(self._folder(STAGING) / name)

    def why_absent(self) -> None:
        """Nothing that a file's own absence would not say."""

    def source(self, name: str) -> str:
        """What pyarrow can open to read the file; raises as `read` does."""
        with _read_errors(self._at(name)):
            require_regular(self._at(name))
        return os.path.abspath(self._at(name))  # s3:run/labels.parquet would be a URL to pyarrow

    def free(self) -> int | None:
        """Bytes that can still be written; None when nothing is there yet."""
        with suppress(OSError):
            return shutil.disk_usage(self._path).free
        return None

    @contextmanager
    def _staged(self, name: str, content: bytes, folders: Sequence[Path] = ()) -> Iterator[Path]:
        """A fsynced file with `content` on the same filesystem, gone afterwards unless it was renamed.

        Args:
            folders: fsynced meanwhile.
        """
        make_folder(self._at(name).parent)
        staging = self._folder(STAGING)
        make_folder(staging)
        staged = staging / f"{Path(name).name[:200]}.{uuid.uuid4().hex}"
        # The writer holds a lock on its staged file, so that `sweep` can tell a live one from a dead one's.
        with held_file(staged) as (descriptor, locked):
            self._locks = self._locks and locked
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
                with ThreadPoolExecutor(1 + len(folders)) as threads:
                    syncs = [threads.submit(_fsync_folder, folder) for folder in folders]
                    os.fsync(descriptor)
                for sync in syncs:
                    sync.result()
                yield staged
            finally:
                staged.unlink(missing_ok=True)


def _remove(folder: Path, last: Sequence[str]) -> None:
    """Remove a folder and all that is in it, the file that `last` leads to at the end."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == last[0]):
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif len(last) > 1 and entry.name == last[0]:
            _remove(entry, last[1:])
        else:
            shutil.rmtree(entry)
    folder.rmdir()


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each durable in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync_folder(folder.parent)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is, or links to, a regular file; a link that leads round is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # filesystems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)
