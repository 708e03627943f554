"""Where a run may lie: addresses and folders are checked before anything is read or written there."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from gazetteer.data.core.errors import InputError, redacted

log = logging.getLogger(__name__)

_NAME_BYTES = 255
_HIVE = re.compile(r"[^/=]+=[^/]*")


def check_address(text: str) -> None:
    """InputError unless a run can lie at a folder or URL of this name, whatever lies there."""
    if not text.strip():
        raise InputError("The run folder has no name; accepted: a folder or a URL.")
    if "\0" in text:
        raise InputError(f"{text!r} cannot name a run folder: it holds a NUL character.")
    if "://" in text and not text.startswith("file://"):
        if redacted(text) != text:
            raise InputError(
                f"{redacted(text)} holds a password or a key, which would be kept in logs and the shell's history; "
                "give it to the store's own configuration (environment, profile or key file) and the address without."
            )
        return
    path = text.removeprefix("file://")
    if path.startswith("~"):
        raise InputError(f"{path} was not expanded by the shell; write the home folder out, or ./{path} to mean it.")
    try:
        longest = max(len(os.fsencode(part)) for part in Path(path).parts or ("",))
    except UnicodeEncodeError as error:
        raise InputError(f"{path!r} cannot name a folder: it is not valid Unicode.") from error
    if longest > _NAME_BYTES:
        raise InputError(f"{path[:60]}… cannot name a folder: a name has at most {_NAME_BYTES} bytes.")
    if Path(os.path.abspath(path)) == Path("/"):
        raise InputError("The root folder / cannot be a run; choose a folder of its own.")
    missing = next((up.parent for up in _ups(Path(path)) if not up.parent.is_dir()), None)
    if missing is not None:  # made on the way, it would lead to a folder in which nobody has looked
        raise InputError(f"{path} leads through {missing}, which is no folder.")
    if Path(path).exists() and not Path(path).is_dir():
        raise InputError(f"{path} is not a folder; accepted: a folder, there or to be made, or a URL.")


def real_place(path: str | os.PathLike[str]) -> str:
    """Where a folder or URL really is, however it is written: links followed, ``..`` and ``file://`` resolved."""
    text = os.fspath(path).removeprefix("file://")
    return text.rstrip("/") if "://" in text or text.startswith("hf:") else os.path.realpath(text)


def holds(outer: str | os.PathLike[str], inner: str | os.PathLike[str]) -> bool:
    """Whether one folder or URL is another or lies somewhere above it."""
    above, below = real_place(outer), real_place(inner)
    if below == above or below.startswith(f"{above.rstrip('/')}/"):
        return True
    try:  # where names differ in case alone, say, or a folder is mounted twice
        return any(os.path.samefile(above, up) for up in (Path(below), *Path(below).parents) if os.path.exists(up))
    except OSError:
        return False


def _ups(path: Path) -> list[Path]:
    """The beginnings of a path that end in ``..``, the shortest first."""
    return [beginning for beginning in reversed((path, *path.parents)) if beginning.name == ".."]


def warn_of_columns(text: str) -> None:
    """Log a warning when a path would be taken for the values of a partitioned data set."""
    columns = [part for part in text.split("/") if _HIVE.fullmatch(part)]
    if columns:
        log.warning(
            "%s lies below %s, which DuckDB and others read as a column of every table: "
            "pass hive_partitioning=false (or partitioning=None) to them.", redacted(text), columns[0],
        )  # fmt: skip
