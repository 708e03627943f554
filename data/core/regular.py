"""Reading files that somebody else may have made: regular ones only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gazetteer.data.core.errors import InputError


def require_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """The status of a regular file, links followed.

    Raises:
        OSError: nothing is there, or it may not be looked at.
        InputError: it is a pipe, a socket or a device, which may never end, or a folder.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{os.fspath(path)} is not a regular file; pipes, sockets, devices and folders are not read.")
    return status


def read_regular(path: Path) -> bytes:
    """The whole of a regular file; raises as `require_regular` and `Path.read_bytes` do."""
    require_regular(path)
    return path.read_bytes()
