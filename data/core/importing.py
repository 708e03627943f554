"""The one place that imports what a configuration names as ``package.module:function``.

Importing runs the module's code: such names come from a user's own configuration or command line, never from a
checkpoint, a run folder or a table.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
from collections.abc import Callable
from typing import Any

from gazetteer.data.core.digests import digest_file
from gazetteer.data.core.errors import InputError

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def names_code(name: str) -> bool:
    """Whether it is spelled ``module:function``, as an address such as ``head:6379`` is not."""
    return _NAME.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Whether ``module:function`` is of this package: a run folder that names it makes us run no stranger's code."""
    return name.startswith("gazetteer.")


def import_named(name: str, key: str, takes: str = "") -> Any:
    """The callable that ``module:function`` names (``module:Class.method`` too).

    Args:
        name: importable from where the program runs; no file path and no relative import.
        key: what asked for it, such as ``vocabulary.tagger``; begins the sentence when it fails.
        takes: what it will be called with, one argument, in words; empty: that is not looked at.

    Raises:
        InputError: another spelling, no such module or function, a module that fails as it is imported, or
            something that cannot be called, or not with what it takes.
    """
    if not names_code(name):
        raise InputError(f"{key} {name!r} cannot be imported; accepted: package.module:function.")
    module, _, path = name.partition(":")
    try:
        value = importlib.import_module(module)
        for attribute in path.split("."):
            value = getattr(value, attribute)
    except (SystemExit, Exception) as error:  # a module may raise anything as it is imported
        reason = str(error) or type(error).__name__
        raise InputError(f"{key} {name!r} cannot be imported as module:function: {reason}.") from error
    if not callable(value):
        raise InputError(f"{key} {name!r} is not callable.")
    if takes and not _takes_one(value):
        raise InputError(f"{key} {name!r} cannot be called with {takes} alone.")
    return value


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether it can be called with one argument, as far as it says."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # what is not written in Python need not say it
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def with_state(name: str, key: str) -> str:
    """`with_source`, and what the module's own function ``digest`` says of what else it answers by, such as weights.

    Raises:
        InputError: as `import_named`, which imports it; a digest that is no text.
    """
    if not name:
        return name
    import_named(name, key)
    stated = getattr(importlib.import_module(name.partition(":")[0]), "digest", None)
    if stated is None:
        return with_source(name)
    if not isinstance(state := stated(), str):
        raise InputError(f"{key} {name!r}: the function digest of its module gives {state!r}; it must give a text.")
    return f"{with_source(name)} {state}"


def with_source(name: str) -> str:
    """``module:function`` with the digest of the file that the module is in, by which another version is another name.

    What is no such name, or cannot be found, stays as it is: who imports it says what is wrong.
    """
    if not names_code(name):
        return name
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (SystemExit, Exception):  # a package may raise anything as it is imported on the way
        return name
    where = spec.origin if spec is not None else None
    return f"{name} sha256:{digest_file(where)}" if where and os.path.isfile(where) else name
