"""Workers without models, for tests of the executors: they square numbers, and some numbers are poison."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.executors.task import Lost


class Squarer:
    """Squares its items. What others do is said in BAD."""

    def run(self, items: Sequence[int]) -> list[tuple[int, int]]:
        for item in items:
            if item in BAD:
                BAD[item]()
        return [(item, item * item) for item in items]


class Staged:
    """The same in two stages: the first doubles beside the item, the second adds up and notes who did what."""

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages = tuple(stages)

    def run(self, given: Sequence[Any]) -> list[Any]:
        if "first" in self.stages:
            for item in given:
                if item in BAD:
                    BAD[item]()
            given = [(item, 2 * item, os.getpid()) for item in given]
        if "second" in self.stages:
            for item, _, _ in given:
                if item - 100 in BAD:
                    BAD[item - 100]()
            given = [(item, item + doubled, first, os.getpid()) for item, doubled, first in given]
        return list(given)


class Bulky:
    """The first stage makes a megabyte of each number, which stays on its node; the second, slower, adds it up."""

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages = tuple(stages)

    def run(self, given: Sequence[Any]) -> list[Any]:
        if "first" in self.stages:
            return [(item, np.full(2**18, item, np.int32)) for item in given]
        time.sleep(0.3)
        return [(item, int(numbers.sum(dtype=np.int64))) for item, numbers in given]


class Placed:
    """Two stages that note where they are done: process, node, and the devices that Ray lets it see."""

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages = tuple(stages)

    def run(self, given: Sequence[Any]) -> list[Any]:
        import ray

        time.sleep(0.1)  # long enough that every worker gets its share
        me = (os.getpid(), ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        given = [[item] for item in given] if "first" in self.stages else given
        return [[*row, me] for row in given]


class Stillborn:
    """Dies whenever it is built."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class NeverReady:
    """Hangs whenever it is built."""

    def __init__(self) -> None:
        time.sleep(10_000)


def refuse() -> None:
    raise InputError("The item -3 is not a number to square.")


def fail() -> None:
    raise RuntimeError("two below zero")


def eat() -> None:
    """Allocate, and touch, up to 3 GiB in all."""
    hoard = [bytearray(b"x") * (64 << 20) for _ in range(48)]
    raise AssertionError(f"nothing stopped {len(hoard)} allocations")


BAD = {
    -1: lambda: os.kill(os.getpid(), signal.SIGKILL),
    -2: fail,
    -3: refuse,
    -4: lambda: os.kill(os.getpid(), signal.SIGSEGV),
    -5: lambda: time.sleep(10_000),
    -6: eat,
}
"""Items that are poison, and what they do to whoever squares them."""


def join(parts: Sequence[list[Any]]) -> list[Any]:
    return [pair for part in parts for pair in part]


def lost(item: int, why: Lost) -> list[tuple[int, str]]:
    assert why.message
    assert why.attempts >= 1
    return [(item, why.error)]


def tries(item: int, why: Lost) -> list[tuple[int, int]]:
    return [(item, why.attempts)]


def nouns(prompt: str) -> list[str]:
    """A noun finder that prompts break with the poisons that the environment names."""
    for word in os.environ.get("GAZETTEER_TEST_POISON", "").split():
        if f"{word} poison" in prompt:
            POISONS[word]()
    return [word for word in ("boat", "tree") if word in prompt]


def spoil() -> None:
    raise ValueError("cannot find the nouns of a poisonous prompt")


POISONS = {"raising": spoil, "crashing": BAD[-4], "hanging": BAD[-5], "eating": eat}
"""What `nouns` does with a prompt that names the poison."""
