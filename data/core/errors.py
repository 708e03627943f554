"""The errors a user can cause or must act on; each carries one sentence and an exit code."""

from __future__ import annotations


class GazetteerError(Exception):
    """A run cannot go on; the message is one sentence that says what, where, and what to do (exit code 1)."""

    exit_code = 1


class InputError(GazetteerError):
    """The user's input is wrong: a path, a config key, a file's content (exit code 2)."""

    exit_code = 2


class LockedError(GazetteerError):
    """Another process holds the run (exit code 75, EX_TEMPFAIL: try again later)."""

    exit_code = 75
