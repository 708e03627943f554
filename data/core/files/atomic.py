"""Files written so that a reader finds all of the content or what was there before, whatever dies when."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gazetteer.data.core.errors import GazetteerError, InputError


@contextmanager
def write_errors(path: str, resumes: bool = False) -> Iterator[None]:
    """Turn an OSError of a write into one sentence (GazetteerError) that says how to go on.

    resumes: what writes there goes on where it was stopped.
    """
    again = "run the same command again: it resumes" if resumes else "run the same command again"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            message = f"No space left on {path}; free some and {again}."
        else:
            reason = error.strerror or str(error)
            message = f"Cannot write {path} ({reason}); put that right and {again}."
        raise GazetteerError(message) from error


def new_file(path: str | Path) -> Path:
    """A file that somebody names to be written; nothing that is there is written over, and nothing is made yet.

    Raises:
        InputError: something is there already, or nothing can be written there.
    """
    if "://" in str(path):
        raise InputError(f"{path} is a URL; name a file on this machine by its path.")
    place = Path(path)
    above = next(up for up in place.absolute().parents if os.path.lexists(up))
    try:
        os.lstat(place)
        raise InputError(f"{place} is there already, and nothing is written over it; give a new name.")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{place} cannot be written ({reason}); name another place.") from error
    if not above.is_dir():
        raise InputError(f"{place} cannot be written ({above} is no folder); name another place.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{place} cannot be written (no permission in {above}); name another place.")
    return place


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either all of it or what it held before.

    One writer a path: the caller keeps others away (the jobs hold the lock of the run). What a killed writer
    leaves behind has a fixed name, so that the next one writes over it.

    Raises:
        GazetteerError: no space, or no permission.
    """
    with replaced_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """As `replace_file`, for content that the block writes to the path it is given; raises as that does."""
    partial = path.with_name(f".{path.name}.partial")
    with write_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
