"""Reading files that somebody else may have made: regular ones only."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from gazetteer.data.core.errors import InputError


class NotRegularError(InputError):
    """Something that is no regular file lies where one was expected."""


def require_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """The status of a regular file, links followed.

    Raises:
        OSError: nothing is there, or it may not be looked at.
        NotRegularError: it is a pipe, a socket or a device, which may never end, or a folder.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise NotRegularError(f"{os.fspath(path)} is a link that leads round to itself.") from error
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(
            f"{os.fspath(path)} is not a regular file; pipes, sockets, devices and folders are not read."
        )
    return status


def read_regular(path: Path) -> bytes:
    """The whole of a regular file; raises as `require_regular` and `Path.read_bytes` do."""
    require_regular(path)
    return path.read_bytes()
