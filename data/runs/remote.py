"""Whole files behind a URL, through fsspec: one PUT a file, create-only where the store offers it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.runs.files import LocalFiles


class RemoteFiles:
    """Files behind an fsspec URL (s3, gs, memory, …); `gazetteer.data.runs.files.Files` says what each method does."""

    guards = False

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        try:
            import fsspec

            self._fs, self._base = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except Exception as error:  # every store has its own
            raise InputError(
                f"Cannot open {url} ({error}); accepted: a folder, or a URL whose fsspec package is installed."
            ) from error

    def _at(self, name: str) -> str:
        return f"{self._base.rstrip('/')}/{name}"

    @contextmanager
    def _told(self, verb: str, name: str) -> Iterator[None]:
        """Turn whatever a store raises into a sentence (GazetteerError); missing and taken names stay themselves.

        A write that misses something misses its bucket, and that gets a sentence too.
        """
        try:
            yield
        except FileExistsError:
            raise
        except Exception as error:  # every store has its own
            if isinstance(error, FileNotFoundError) and verb != "write":
                raise
            raise GazetteerError(
                f"Cannot {verb} {self.root}/{name} ({type(error).__name__}: {error}); "
                "mend that and run the same command again: it resumes."
            ) from error

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError when absent."""
        with self._told("read", name):
            return bytes(self._fs.cat_file(self._at(name)))

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None when absent."""
        with suppress(FileNotFoundError), self._told("read", name):
            return int(self._fs.info(self._at(name))["size"])
        return None

    def names(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in `folder`."""
        with suppress(FileNotFoundError), self._told("list", folder):
            entries = self._fs.ls(self._at(folder), detail=True)
            return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")
        return []

    def replace(self, name: str, content: bytes) -> None:
        """Write a file over whatever was there."""
        with self._told("write", name):
            self._fs.pipe_file(self._at(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless the name is taken; says whether it did."""
        with suppress(FileExistsError), self._told("write", name):
            try:
                self._fs.pipe_file(self._at(name), content, mode="create")
            except (TypeError, NotImplementedError):
                # A store without conditional writes: this check is not atomic; data/runs/commits.py checks again.
                if self._fs.exists(self._at(name)):
                    return False
                self._fs.pipe_file(self._at(name), content)
            return True
        return False

    def copy(self, name: str, to: str) -> None:
        """Put the content of `name` under `to`, without fetching it where the store can."""
        with self._told("copy", name):
            self._fs.cp_file(self._at(name), self._at(to))

    def remove(self, name: str) -> None:
        """Remove the file if it exists."""
        with suppress(FileNotFoundError), self._told("remove", name):
            self._fs.rm_file(self._at(name))

    def remove_tree(self) -> None:
        """Remove every file under the root."""
        with suppress(FileNotFoundError), self._told("remove", ""):
            self._fs.rm(self._base, recursive=True)

    def guard(self, key: str) -> AbstractContextManager[None]:
        """Guards nothing: object stores have no locks."""
        return nullcontext()

    def sweep(self) -> None:
        """Nothing to do: who writes what is staged may be alive, and `Commits.remove_staged` ends it."""

    def source(self, name: str) -> Any:
        """What pyarrow can open to read the file."""
        with self._told("read", name):
            return self._fs.open(self._at(name), "rb")

    def free(self) -> int | None:
        """Unknown."""
        return None


def open_files(path: str | os.PathLike[str]) -> LocalFiles | RemoteFiles:
    """The files under a folder or URL; nothing is created yet."""
    text = os.fspath(path)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    elif "://" in text:
        return RemoteFiles(text)
    return LocalFiles(Path(text))
