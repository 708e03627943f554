"""How many of a thing a prompt asks for, and whether a picture shows as many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gazetteer.data.scenes.captions import NOUNS
from gazetteer.data.scenes.world import CONCEPTS

_NUMBERS = {"a": 1, "an": 1, "the": 1, "one": 1, "two": 2, "three": 3, "four": 4}
_COUNTED = re.compile(rf"\b({'|'.join(_NUMBERS)}) ([a-z]+)")
_THINGS = {concept.name for concept in CONCEPTS if concept.kind == "thing"}


def counts_asked(prompt: str) -> dict[str, int]:
    """How many of each thing a prompt asks for, by concept; plurals without a number ask for none in particular."""
    asked: dict[str, int] = {}
    for number, noun in _COUNTED.findall(prompt.lower()):
        concept = NOUNS.get(noun)
        if concept in _THINGS:
            asked[concept] = asked.get(concept, 0) + _NUMBERS[number]
    return asked


def counts_right(prompts: Sequence[str], shown: Sequence[Mapping[str, int]]) -> dict[str, tuple[int, int]]:
    """By concept: of how many prompts that ask for a number the picture `shown` has it, and how many ask."""
    right: dict[str, tuple[int, int]] = {}
    for prompt, numbers in zip(prompts, shown, strict=True):
        for concept, wanted in counts_asked(prompt).items():
            hits, total = right.get(concept, (0, 0))
            right[concept] = (hits + (numbers.get(concept, 0) == wanted), total + 1)
    return right
