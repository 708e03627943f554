"""The errors a user can cause or must act on; each carries one sentence and an exit code."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(://)[^\s/@:]*:[^\s/@]*@")
_QUERY = re.compile(r"([?&][^=&\s]*(?:key|sig|secret|token|password|credential)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """`text` with the passwords of addresses, and whatever looks like one in their queries, replaced by ``***``."""
    return _QUERY.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or where it has none, its type: what fits into a sentence.

    A line that only announces the next, as "Error(s) in loading state_dict:" does, goes on with that.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


class GazetteerError(Exception):
    """A run cannot go on; the message is one sentence that says what, where, and what to do (exit code 1).

    Addresses in the message lose their passwords.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class InputError(GazetteerError):
    """The user's input is wrong: a path, a config key, a file's content (exit code 2)."""

    exit_code = 2


class LockedError(GazetteerError):
    """Another process holds the run (exit code 75, EX_TEMPFAIL: try again later)."""

    exit_code = 75
