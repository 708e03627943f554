"""The edge of the program: whatever goes wrong inside ends in one sentence and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import platform
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress

from gazetteer import __version__
from gazetteer.data.core.errors import GazetteerError
from gazetteer.jobs.cli.arguments import FAILED
from gazetteer.jobs.cli.output import one_object, print_error

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Reasons why nothing can be written."""


def guarded(arguments: argparse.Namespace, action: Callable[[argparse.Namespace], int]) -> int:
    """Carry out a verb; returns its exit code, or that of what stopped it, after one sentence on stderr.

    130 and 143 are those of a process that SIGINT or SIGTERM ended. What nobody foresaw is 1, and its trace is in a
    file that the sentence names.
    """
    try:
        with one_object(arguments):
            try:
                return action(arguments)
            except GazetteerError as error:
                return print_error(arguments, str(error), error.exit_code)
            except KeyboardInterrupt as error:
                again = "; run the same command again and it goes on from here" if arguments.resumes else ""
                return print_error(arguments, f"stopped{again}.", 128 + getattr(error, "signal", signal.SIGINT))
            except Exception as error:
                if isinstance(error, BrokenPipeError) and _reader_is_gone(arguments):
                    raise
                if isinstance(error, OSError) and error.errno in _FULL:
                    where = f" ({error.filename})" if error.filename else ""
                    return print_error(arguments, f"nothing more can be written{where}: {error.strerror}.", FAILED)
                return print_error(arguments, _unforeseen(error), FAILED)
            finally:
                if (problem := _stdout_problem()) is not None and sys.exc_info()[0] is None:
                    raise problem
    except BrokenPipeError:  # who reads has enough, as head does
        _forget_stdout()
        return FAILED
    except OSError as error:
        _forget_stdout()
        return print_error(None, f"what was to be printed could not be written: {error.strerror}.", FAILED)


def _stdout_problem() -> OSError | None:
    """Why nothing can be printed any more, or None."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _reader_is_gone(arguments: argparse.Namespace) -> bool:
    """Whether a broken pipe is the one that is printed to, and not one to another process that died."""
    if isinstance(_stdout_problem(), BrokenPipeError):
        return True
    watched = select.poll()  # what is not buffered leaves nothing to flush
    for stream in (sys.stdout, sys.stderr, getattr(arguments, "stdout", None)):
        with suppress(AttributeError, OSError, ValueError):
            watched.register(stream.fileno(), 0)  # type: ignore[union-attr]
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _forget_stdout() -> None:
    """Let what is left to be printed go, so that the interpreter does not try again at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _unforeseen(error: BaseException) -> str:
    """The sentence for an exception that nobody foresaw; its trace goes into a file, or to stderr where none can be."""
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, MemoryError):
        what = "there is too little memory"
    elif isinstance(error, OSError) and error.filename is not None:
        what = f"{error.filename} cannot be used ({error.strerror})"
    trace = "".join(traceback.format_exception(error))
    about = f"gazetteer {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    try:
        descriptor, path = tempfile.mkstemp(prefix="gazetteer-", suffix=".log", text=True)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{about}{' '.join(sys.argv[1:2])}\n\n{trace}")
    except OSError:
        print(trace, file=sys.stderr)
        return f"{what}; this was not foreseen, and the trace above is worth a report."
    return f"{what}; this was not foreseen, and its trace, worth a report, is in {path}."
