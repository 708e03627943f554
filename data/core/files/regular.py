"""Reading files that somebody else may have made: regular ones only."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from gazetteer.data.core.errors import InputError

_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


class NotRegularError(InputError):
    """Something that is no regular file lies where one was expected."""


def local_path(named: str | os.PathLike[str]) -> Path | None:
    """The place on this machine that somebody names, ``file://`` taken off; None: it lies behind a URL or on a hub."""
    text = os.fspath(named).removeprefix("file://")
    return None if "://" in text or text.startswith("hf:") else Path(text)


def require_local(named: str | os.PathLike[str]) -> Path:
    """`local_path` of where something is to be written; InputError where that is not on this machine."""
    place = local_path(named)
    if place is None:
        raise InputError(f"{named} is not on this machine, where this is written; give a folder here.")
    return place


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


def require_file(what: str, path: str | os.PathLike[str], accepted: str = "") -> Path:
    """The path of a regular file that somebody named, links followed; whoever reads such files asks here first.

    Args:
        what: the file's role, which begins the sentence.
        accepted: what may be named instead.

    Raises:
        InputError: nothing is there, or a folder, or a pipe, a socket or a device, which may never end.
    """
    said = f"{what} {os.fspath(path)}"
    rest = f"; accepted: {accepted}." if accepted else "."
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{said} does not exist{rest}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{said} cannot be looked at ({getattr(error, 'strerror', None) or error}){rest}") from error
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")
        raise InputError(f"{said} is {kind}, and a regular file is needed{rest}")
    return Path(path)


def has_file(what: str, path: str | os.PathLike[str], accepted: str = "") -> bool:
    """Whether a regular file is there; False: nothing is. InputError, as `require_file`, for anything else."""
    return os.path.lexists(path) and bool(require_file(what, path, accepted))


def require_folder(what: str, path: str | os.PathLike[str], accepted: str = "") -> Path:
    """The path of a folder that somebody named.

    Raises:
        InputError: nothing is there, a file, or something else.
    """
    if not os.path.isdir(path):
        kind = "is a file" if has_file(what, path, accepted or "a folder") else "does not exist"
        raise InputError(f"{what} {os.fspath(path)} {kind}; accepted: {accepted or 'a folder'}.")
    return Path(path)


def read_text(what: str, path: str | os.PathLike[str], accepted: str = "") -> str:
    """The text of a file that somebody named; raises InputError as `require_file`, and where it is not UTF-8."""
    try:
        return require_file(what, path, accepted).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{what} {os.fspath(path)} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} {os.fspath(path)} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error


def read_regular(path: Path) -> bytes:
    """The whole of a regular file; raises as `require_regular` and `Path.read_bytes` do."""
    require_regular(path)
    return path.read_bytes()
