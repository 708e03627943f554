"""Content digests: what a run was made from, and what it wrote."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError, redacted
from gazetteer.data.core.files.regular import require_file, require_regular

_CHUNK = 1 << 20
_file_digests: dict[tuple[str, int, int, int, int], str] = {}


def digest_bytes(content: bytes) -> str:
    """sha256 of `content`, in hex."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(obj: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN (ValueError)."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(obj: Any) -> str:
    """sha256 of the canonical JSON of `obj`, in hex: equal for dicts that differ in key order only."""
    return digest_bytes(canonical_json(obj).encode("utf-8", "surrogatepass"))


def digest_file(path: str | os.PathLike[str]) -> str:
    """sha256 of a regular file's content, in hex; remembered within the process while its status stays the same.

    Raises:
        InputError: it cannot be read, or is a pipe, a socket or a device, which may never end.
    """
    try:
        status = require_regular(path)
        # The time of change cannot be set back, as that of modification can.
        key = (os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in _file_digests:
            running = hashlib.sha256()
            with open(path, "rb") as stream:
                while chunk := stream.read(_CHUNK):
                    running.update(chunk)
            _file_digests[key] = running.hexdigest()
    except OSError as error:
        raise InputError(f"Cannot read {os.fspath(path)} ({error.strerror or error}).") from error
    return _file_digests[key]


def digest_folder(path: str | os.PathLike[str]) -> str:
    """sha256 over the sorted relative names and contents of a folder (or of one file), in hex.

    Hidden files and `__pycache__` do not count: they come and go without changing a model. Links are
    followed, because a hub cache keeps its weights behind them.

    Raises:
        InputError: `path` does not exist, holds no file, cannot be read, or holds what is no regular file or a
            link to a folder that it lies in.
    """
    root = Path(path)
    if not root.is_dir():
        return digest_file(require_file("The path", root, "a file or a folder"))
    names = [file.relative_to(root).as_posix() for file in files_below(root)]
    if not names:
        raise InputError(f"{root} holds no files.")
    return digest_json([[name, digest_file(root / name)] for name in sorted(names)])


def digest_path(path: str) -> str:
    """What a configuration's path stands for: ``sha256:`` and the digest of the file or folder there, or the name
    itself, without a password, where nothing lies there, as with the id of a hub.

    Raises:
        InputError: as `digest_folder`.
    """
    return f"sha256:{digest_folder(path)}" if path and os.path.exists(path) else redacted(path)


def files_below(root: Path) -> list[Path]:
    """Every file below a folder that counts as its content, links followed, in no order.

    Raises:
        InputError: something there is no regular file, a link leads nowhere or into a folder it lies in.
    """
    files: list[Path] = []
    open_folders: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    try:
        while open_folders:
            folder, above = open_folders.pop()
            status = os.stat(folder)
            here = (status.st_dev, status.st_ino)
            if here in above:
                raise InputError(f"{folder} is a link to a folder that it lies in; remove the link.")
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__pycache__":
                        continue
                    if entry.is_dir():
                        open_folders.append((Path(entry.path), above | {here}))
                    elif entry.is_file():
                        files.append(Path(entry.path))
                    else:
                        raise InputError(
                            f"{entry.path} is not a regular file (a pipe, a socket, a device or a link that leads "
                            "nowhere); remove it or name another folder."
                        )
    except OSError as error:
        raise InputError(f"Cannot read {error.filename or root} ({error.strerror or error}).") from error
    return files
