"""What a run folder needs of the place where it lies: read whole files, replace them atomically, or create them once.

Nothing here streams to a final name: a reader sees a whole file or none, whatever dies when.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

STAGING = "_meta/staging"
MADE_OF = ("_meta", "run.json")
"""The file by which a folder is known to be a run, folder by folder."""


class Files(Protocol):
    """The few operations a run folder needs; names are relative, with forward slashes."""

    root: str

    @property
    def guards(self) -> bool:
        """Whether `guard` keeps others out, as far as is known; true inside a `guard` that does."""

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError when absent, GazetteerError when unreadable."""

    def size(self, name: str) -> int | None:
        """Bytes of the file, or None when absent."""

    def names(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in `folder`; empty when it does not exist."""

    def folders(self, folder: str) -> list[str]:
        """Sorted base names of the folders directly in `folder`, and of whatever else there is no file."""

    def replace(self, name: str, content: bytes) -> None:
        """Put `content` under `name`, atomically over whatever was there."""

    def create(self, name: str, content: bytes, after: Sequence[str] = ()) -> bool:
        """Put `content` under `name` unless the name is taken; says whether it did.

        Args:
            after: names put there by `move`, which have to be durable before `name` counts.
        """

    def move(self, name: str, to: str) -> None:
        """Rename a file over whatever was there, FileNotFoundError when absent; durable with a `create` after it."""

    def copy(self, name: str, to: str) -> None:
        """Put the content of `name` under `to`, atomically; FileNotFoundError when absent."""

    def remove(self, name: str) -> None:
        """Remove the file if it exists."""

    def remove_tree(self) -> None:
        """Remove every file under the root, and the root; what says that it is a run (`MADE_OF`) last of all."""

    def guard(self, key: str) -> AbstractContextManager[None]:
        """Keep other processes out of the block with the same key, where the storage can."""

    def sweep(self) -> None:
        """Remove what killed writers left behind; live writers are not disturbed."""

    def why_absent(self) -> str | None:
        """What keeps everything from being there, such as a bucket that does not exist; None: nothing does."""

    def source(self, name: str) -> Any:
        """What pyarrow can open to read the file: a path or a file object."""

    def free(self) -> int | None:
        """Bytes that can still be written, where that is known."""
