"""Which prompts a job may use: filtered, each once, and on the side of the data that the job belongs to.

A prompt's side follows from a hash of its normalised text alone: not from its place in a file, the file, or what
else is in it. Two jobs on different sides never share a prompt, wherever each reads its prompts from, and a prompt
that comes back in another collection, in capitals or with another full stop, is on the side it was on before.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Effect, Natural, OneOf, setting, settings
from gazetteer.data.inputs.prompt_files import ACCEPTED, HUB, prompts_of_dataset, prompts_of_file
from gazetteer.data.inputs.prompt_words import has_word, holds, normalised
from gazetteer.data.inputs.prompts import digest_parts

SIDES = ("sae", "dictionary", "evaluation")
"""Prompts to train autoencoders on, to label features with, and to judge both on."""


@settings("prompts")
class PromptConfig:
    """A collection of prompts and what is taken of it."""

    path: str = setting(
        Effect.SELECTION,
        "A .txt, .csv, .jsonl or .parquet file, a folder that Hugging Face datasets reads, or ``hf:owner/name``.",
        path=True,
    )
    column: str = setting(
        Effect.SELECTION, "The column or key that holds the prompts; a .txt has none.", default="prompt"
    )
    subset: str = setting(Effect.SELECTION, "Of a Hugging Face data set.", default="")
    split: str = setting(Effect.SELECTION, "Of a Hugging Face data set.", default="train")
    revision: str = setting(Effect.SELECTION, "Of a Hugging Face data set.", default="")
    limit: Natural = setting(
        Effect.SELECTION, "Take at most so many, the first that pass; 0 takes all. A hub data set needs one.", default=0
    )
    min_chars: Natural = setting(Effect.SELECTION, "Fewest characters of a prompt.", default=0)
    max_chars: Natural = setting(Effect.SELECTION, "Most characters of a prompt; 0: any number.", default=0)
    min_words: Natural = setting(Effect.SELECTION, "Fewest words of a prompt.", default=0)
    max_words: Natural = setting(Effect.SELECTION, "Most words of a prompt; 0: any number.", default=0)
    matching: str = setting(
        Effect.SELECTION, "A regular expression that must be found in a prompt, in any case.", default=""
    )
    not_matching: str = setting(
        Effect.SELECTION, "A regular expression that must not be found in a prompt, in any case.", default=""
    )
    with_words: tuple[str, ...] = setting(
        Effect.SELECTION,
        "A prompt must hold one of these, as whole words or phrases in any case; empty sets no condition.",
        default=(),
    )
    without_words: tuple[str, ...] = setting(
        Effect.SELECTION, "A prompt must hold none of these, as whole words or phrases in any case.", default=()
    )
    side: Annotated[str, OneOf(("", *SIDES))] = setting(
        Effect.SELECTION,
        "Which part of the prompts, by a hash of their text, so that jobs on different sides share none; "
        "empty for all.",
        default="",
    )
    shares: tuple[float, ...] = setting(
        Effect.SELECTION,
        "Of the sides sae, dictionary and evaluation; they add up to 1. Prompts change sides only when these change.",
        default=(0.8, 0.16, 0.04),
    )

    def __post_init__(self) -> None:
        for name in ("matching", "not_matching"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise InputError(f"prompts.{name} is not a regular expression: {error}.") from error
        if not all(map(has_word, (*self.with_words, *self.without_words))):
            raise InputError("prompts.with_words and prompts.without_words hold words or phrases; one has no word.")
        if len(self.shares) != len(SIDES) or min(self.shares) < 0 or not math.isclose(sum(self.shares), 1.0):
            raise InputError(
                f"prompts.shares holds the shares of {', '.join(SIDES)}, which add up to 1, not {list(self.shares)}."
            )
        if self.path.startswith(HUB) and not self.limit:
            raise InputError(f"prompts.limit must say how many prompts to take of {self.path}.")

    def wants(self, prompt: str) -> bool:
        """Whether a prompt, stripped, passes the filters and is on the side."""
        words = len(prompt.split())
        return (
            self.min_chars <= len(prompt) <= (self.max_chars or math.inf)
            and self.min_words <= words <= (self.max_words or math.inf)
            and (not self.matching or re.search(self.matching, prompt, re.IGNORECASE) is not None)
            and (not self.not_matching or re.search(self.not_matching, prompt, re.IGNORECASE) is None)
            and (not self.with_words or holds(prompt, self.with_words))
            and not holds(prompt, self.without_words)
            and (not self.side or side_of(prompt, self.shares) == self.side)
        )


def side_of(prompt: str, shares: tuple[float, ...]) -> str:
    """Which of SIDES a prompt is on, by a hash of its normalised text."""
    place = int(digest_parts("side", normalised(prompt))[:13], 16) / 16**13  # 52 bits: exact in a double, below 1
    bounds = (shares[0], shares[0] + shares[1])
    return SIDES[sum(place >= bound for bound in bounds)]


def read_prompts(config: PromptConfig) -> list[str]:
    """The prompts `config` asks for: stripped, each once (of equal normalised ones the first), in their order.

    How many are left out for saying what an earlier one says goes to stderr, once a process.

    Raises:
        InputError: nothing to read, another format, no such column, bytes that are not UTF-8, or no prompts.
    """
    if not config.path:
        raise InputError("prompts.path is empty: prompts are needed here, which runs on given pictures may leave out.")
    seen: set[str] = set()
    prompts: list[str] = []
    read = repeated = 0
    for prompt in _entries(config):
        if not prompt or not (stripped := prompt.strip()):
            continue
        read += 1
        if not config.wants(stripped):
            continue
        if (key := digest_parts(normalised(stripped))[:32]) in seen:
            repeated += 1
            continue
        seen.add(key)
        prompts.append(stripped)
        if len(prompts) == config.limit:
            break
    if not read:
        raise InputError(f"{config.path} holds no prompts; accepted: {ACCEPTED}.")
    if not prompts:
        side = f" and the side {config.side}" if config.side else ""
        raise InputError(f"None of the {read} prompts of {config.path} passes the filters{side}.")
    if repeated:
        _say(f"{config.path}: {repeated} of {read} prompts are left out: their words are those of an earlier one")
    return prompts


@cache
def _say(sentence: str) -> None:
    print(f"gazetteer: {sentence}", file=sys.stderr, flush=True)


def _entries(config: PromptConfig) -> Iterator[str | None]:
    if config.path.startswith(HUB) or Path(config.path).is_dir():
        return prompts_of_dataset(
            config.path.removeprefix(HUB), config.column,
            subset=config.subset, split=config.split, revision=config.revision,
        )  # fmt: skip
    return prompts_of_file(config.path, config.column)
