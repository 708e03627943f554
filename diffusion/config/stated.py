"""Configurations that know which of their values was read last, so that what goes wrong with it can be told by name."""

from __future__ import annotations

import inspect
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


def built(kind: Any, settings: Mapping[str, Any], model: str, file: str) -> Any:
    """A network of a class of diffusers, by its configuration.

    Args:
        model, file: as sentences call them.

    Raises:
        InputError: it cannot be made; names the values of other types than the class has by default. Where all are as
            they should be, what was thrown is.
    """
    try:
        return kind.from_config(settings)
    except Exception as error:  # no type or range is asked of a configuration, so that anything may be thrown
        usual = {name: own.default for name, own in inspect.signature(kind.__init__).parameters.items()}
        odd = [
            f"{key}={settings[key]!r} (by default {default!r})"
            for key, default in usual.items()
            if type(default) in _ALIKE and key in settings and not isinstance(settings[key], _ALIKE[type(default)])
        ]
        if not odd:
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"The {model} cannot be used: its {file} says {', '.join(odd)} ({why}).") from error


_ALIKE: dict[type, tuple[type, ...]] = {
    bool: (bool,), int: (int, float, list, tuple), float: (int, float), str: (str,), tuple: (list, tuple, int),
    list: (list, tuple, int),
}  # fmt: skip
"""What a value may be, by the type of its default."""
