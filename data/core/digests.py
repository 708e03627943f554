"""Content digests: what a run was made from, and what it wrote."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError

_CHUNK = 1 << 20
_file_digests: dict[tuple[str, int, int], str] = {}


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
    """sha256 of a file's content, in hex; remembered by (path, size, mtime) within the process."""
    try:
        status = os.stat(path)
        key = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
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
        InputError: `path` does not exist, holds no file or cannot be read.
    """
    root = Path(path)
    if root.is_file():
        return digest_file(root)
    if not root.is_dir():
        raise InputError(f"{root} does not exist; accepted: a file or a folder.")
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        names += [Path(folder, name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    if not names:
        raise InputError(f"{root} holds no files.")
    return digest_json([[name, digest_file(root / name)] for name in sorted(names)])
