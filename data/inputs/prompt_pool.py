"""Which prompts a job may use: filtered, each once, and on the side of the data that the job belongs to.

A prompt's side follows from a hash of its normalised text alone: not from its place in a file, the file, or what
else is in it. Two jobs on different sides never share a prompt, wherever each reads its prompts from, and a prompt
that comes back in another collection, in capitals or with another full stop, is on the side it was on before.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompt_files import ACCEPTED, HUB, prompts_of_dataset, prompts_of_file
from gazetteer.data.inputs.prompts import digest_parts

SIDES = ("sae", "dictionary", "evaluation")
"""Prompts to train autoencoders on, to label features with, and to judge both on."""


@dataclass(frozen=True)
class PromptConfig:
    """A collection of prompts and what is taken of it.

    Attributes:
        path: a .txt, .csv, .jsonl or .parquet file, a folder that Hugging Face datasets reads, or ``hf:owner/name``.
        column: the column or key that holds the prompts; a .txt has none.
        subset, split, revision: of a Hugging Face data set.
        limit: take at most so many, the first that pass; 0 takes all. A hub data set needs one.
        min_chars, max_chars, min_words, max_words: length of a prompt; a maximum of 0 is none.
        matching, not_matching: regular expressions that must, or must not, be found in a prompt, in any case.
        with_words, without_words: a prompt must hold one of the first and none of the second, as whole words or
            phrases in any case; empty sets no condition.
        side: one of SIDES, or empty for all prompts.
        shares: of the sides in the order of SIDES; they add up to 1. Prompts change sides only when these change.
    """

    path: str
    column: str = "prompt"
    subset: str = ""
    split: str = "train"
    revision: str = ""
    limit: int = 0
    min_chars: int = 0
    max_chars: int = 0
    min_words: int = 0
    max_words: int = 0
    matching: str = ""
    not_matching: str = ""
    with_words: tuple[str, ...] = ()
    without_words: tuple[str, ...] = ()
    side: str = ""
    shares: tuple[float, ...] = (0.8, 0.16, 0.04)

    def __post_init__(self) -> None:
        for name in ("limit", "min_chars", "max_chars", "min_words", "max_words"):
            if getattr(self, name) < 0:
                raise InputError(f"prompts.{name} must be 0 or more, not {getattr(self, name)}.")
        for name in ("matching", "not_matching"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise InputError(f"prompts.{name} is not a regular expression: {error}.") from error
        if not all(re.search(r"\w", phrase) for phrase in (*self.with_words, *self.without_words)):
            raise InputError("prompts.with_words and prompts.without_words hold words or phrases; one has no word.")
        if self.side and self.side not in SIDES:
            raise InputError(f"prompts.side is {self.side!r}; accepted: {', '.join(SIDES)}, or empty.")
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
            and (not self.with_words or _holds(prompt, self.with_words))
            and not _holds(prompt, self.without_words)
            and (not self.side or side_of(prompt, self.shares) == self.side)
        )


def normalised(prompt: str) -> str:
    """A prompt's words in lower case with one space between them; Unicode compatibility forms count as one.

    A prompt without any word is its own text without space around it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()


def side_of(prompt: str, shares: tuple[float, ...]) -> str:
    """Which of SIDES a prompt is on, by a hash of its normalised text."""
    place = int(digest_parts("side", normalised(prompt))[:13], 16) / 16**13  # 52 bits: exact in a double, below 1
    bounds = (shares[0], shares[0] + shares[1])
    return SIDES[sum(place >= bound for bound in bounds)]


def read_prompts(config: PromptConfig) -> list[str]:
    """The prompts `config` asks for: stripped, each once (of equal normalised ones the first), in their order.

    Raises:
        InputError: nothing to read, another format, no such column, bytes that are not UTF-8, or no prompts.
    """
    seen: set[str] = set()
    kept: list[str] = []
    found = 0
    for prompt in _entries(config):
        if not prompt or not (stripped := prompt.strip()):
            continue
        found += 1
        if not config.wants(stripped) or (key := digest_parts(normalised(stripped))[:32]) in seen:
            continue
        seen.add(key)
        kept.append(stripped)
        if len(kept) == config.limit:
            break
    if not found:
        raise InputError(f"{config.path} holds no prompts; accepted: {ACCEPTED}.")
    if not kept:
        side = f" and the side {config.side}" if config.side else ""
        raise InputError(f"None of the {found} prompts of {config.path} passes the filters{side}.")
    return kept


def _entries(config: PromptConfig) -> Iterator[str | None]:
    if config.path.startswith(HUB) or Path(config.path).is_dir():
        return prompts_of_dataset(
            config.path.removeprefix(HUB), config.column,
            subset=config.subset, split=config.split, revision=config.revision,
        )  # fmt: skip
    return prompts_of_file(config.path, config.column)


def _holds(prompt: str, phrases: tuple[str, ...]) -> bool:
    if not phrases:
        return False
    text = f" {normalised(prompt)} "
    return any(f" {normalised(phrase)} " in text for phrase in phrases)
