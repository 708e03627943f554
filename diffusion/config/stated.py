"""Configurations that know which of their values was read last, so that what goes wrong with it can be told by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gazetteer.data.core.errors import GazetteerError, InputError, first_line


class Stated(dict[str, Any]):
    """A file's configuration; every key that is asked for is noted in a list that several files may share."""

    def __init__(self, file: str, values: Mapping[str, Any], asked: list[tuple[str, str, Any]]) -> None:
        """file: as sentences call it; asked: what was asked for so far: file, key, and what it says."""
        super().__init__(values)
        self._file, self._asked = file, asked

    def __getitem__(self, key: str) -> Any:
        self._asked.append((self._file, key, super().get(key, self)))
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of any mapping."""
        self._asked.append((self._file, key, super().get(key, default)))
        return super().get(key, default)


@contextmanager
def understood(what: str, source: str, asked: list[tuple[str, str, Any]]) -> Iterator[None]:
    """Turn whatever goes wrong with what configurations state into a sentence that names the last value asked for.

    Args:
        what, source: the model's role, and the folder or hub id that it is.
        asked: as the `Stated` were given it.
    """
    try:
        yield
    except GazetteerError:
        raise
    except Exception as error:  # no type or range is asked of a configuration, so that anything may be thrown
        why = f"{type(error).__name__}: {first_line(error)}"
        if not asked:
            raise InputError(f"The {what} {source} is not what its configurations describe ({why}).") from error
        file, key, value = asked[-1]
        said = f"has no {key}" if isinstance(value, Stated) else f"says {key}={value!r}"
        raise InputError(f"The {what} {source} cannot be used: its {file} {said} ({why}).") from error
