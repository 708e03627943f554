"""What a command says: prose for people, or with `--json` one JSON object on stdout and prose on stderr."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import new_file
from gazetteer.data.core.files.regular import local_path, require_local


@contextmanager
def one_object(arguments: argparse.Namespace) -> Iterator[None]:
    """With `--json`, keep stdout for the one object that `print_json` writes; all else that is printed goes to stderr.

    That holds for what libraries and child processes write to file descriptor 1 too.
    """
    if not getattr(arguments, "json", False):
        yield
        return
    real = sys.stdout
    if _descriptor(real) != 1:  # somebody in this process listens already
        arguments.stdout = real
        with redirect_stdout(sys.stderr):
            yield
        return
    real.flush()
    original = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(original, "w", encoding="utf-8", closefd=False) as arguments.stdout, redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(original, 1)
        os.close(original)


def print_json(arguments: argparse.Namespace, value: dict[str, Any]) -> None:
    """Print the value as one JSON object where `--json` was asked for; numbers that JSON lacks become null."""
    if getattr(arguments, "json", False):
        print(json.dumps(finite(value), default=str), file=getattr(arguments, "stdout", sys.stdout))
        arguments.said = True


def new_files(*names: str | None) -> None:
    """Check files that a verb is told to write, before it works (`gazetteer.data.core.files.atomic.new_file`).

    That a folder is not there, and is made with the file, is said.
    """
    places = [new_file(name) for name in names if name]
    for folder in dict.fromkeys(place.parent for place in places if not place.parent.exists()):
        print(f"{folder} is not there, and is made.", file=sys.stderr)


def pages_folder(arguments: argparse.Namespace, name: str) -> str:
    """Where a verb puts its pages: `--out`, or the folder `name` in the run's own, where that is on this machine.

    Raises:
        InputError: it is not, and `--out` is not given; or `--out` is a URL.
    """
    if arguments.out:
        return str(require_local(arguments.out))
    run = local_path(arguments.run)
    if run is None:
        raise InputError(f"{arguments.run} is not on this machine; say with --out FOLDER where the pages go.")
    return str(run / name)


def print_error(arguments: argparse.Namespace | None, sentence: str, code: int) -> int:
    """Say on stderr why a command ends, and with `--json` also in the object on stdout; returns the exit code."""
    print(f"gazetteer: {sentence}", file=sys.stderr)
    if arguments is not None and not getattr(arguments, "said", False):
        print_json(arguments, {"error": sentence, "exit_code": code})
    return code


def finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None
