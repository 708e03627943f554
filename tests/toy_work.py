"""Workers without models, for tests of the executors: they square numbers, and some numbers are poison."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from data.errors import InputError


class Squarer:
    """Squares its items. -1 kills the process, -2 raises, -3 is the user's error."""

    def run(self, items: Sequence[int]) -> list[tuple[int, int]]:
        for item in items:
            if item == -1:
                os.kill(os.getpid(), signal.SIGKILL)
            if item == -2:
                raise RuntimeError("two below zero")
            if item == -3:
                raise InputError("The item -3 is not a number to square.")
        return [(item, item * item) for item in items]


class Stillborn:
    """Dies whenever it is built."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def join(parts: Sequence[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [pair for part in parts for pair in part]


def lost(item: int, message: str, attempts: int) -> list[tuple[int, int]]:
    assert message
    assert attempts >= 1
    return [(item, 0)]


def nouns(prompt: str) -> list[str]:
    """A noun finder that some prompts break, as long as the environment says so."""
    mode = os.environ.get("GAZETTEER_TEST_POISON", "")
    if "poison" in prompt and mode == "raise":
        raise ValueError("cannot find the nouns of a poisonous prompt")
    if "poison" in prompt and mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return [word for word in ("boat", "tree") if word in prompt]
