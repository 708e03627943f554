"""Prompts said another way: without a concept, or in other words with it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from gazetteer.diffusion.draw import tokens_cut
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex
from gazetteer.labeling.vocabulary.words import APOSTROPHES, is_latin, spellings, words

_COUNT = r"(?:(?:an?|the|one|two|three|four|five|six|many|some|several) )?"
_HYPHEN, _PIECE = r"[-‐‑‒–]", rf"[\w{APOSTROPHES}]+"
_POSSESSIVE = rf"(?:[{APOSTROPHES}]s\b|(?<=s)[{APOSTROPHES}](?= \w))?"
_PARTED = re.compile(r",| and ")
_PLACE = r"(?: (?:on the (?:left|right)|in the middle))?"


def without(prompt: str, concept: str) -> str:
    """The prompt without a concept: its word or plural goes, with the article before it and the place behind.

    However the word is written (`spellings`), with its possessive, and with the compound that it is a part of ("a
    tree-lined road" without tree is "road"). A word for the style of the whole picture takes its preposition with it
    ("at night", "in the style of neon", "in Van Gogh's style").
    """
    start, word = _written(concept)
    gone = re.sub(rf"\b(?:at|in|in the style of) {_COUNT}{word}(?: style\b)?", "", prompt, flags=re.IGNORECASE)
    gone = re.sub(rf"{start}{_COUNT}{word}(?: picture)?(?: of\b)?{_PLACE}", "", gone, flags=re.IGNORECASE)
    gone = re.sub(r"\b(?:with|and|on|of)\s*(?=,|$|\b(?:with|and)\b)", "", gone.strip())
    gone = re.sub(r",\s*(and|with)\b", r" \1", gone)
    gone = re.sub(r"^\s*(?:,|and|with|on)\s+", "", gone)
    return re.sub(r"\s*,(?:\s*,)*", ",", re.sub(r"\s+", " ", gone)).strip(" ,")


def _written(concept: str) -> tuple[str, str]:
    """Patterns of where a concept's name may begin and of the name; scripts without spaces have no such borders."""
    longest_first = sorted(spellings(concept), key=len, reverse=True)
    ways = "|".join("".join(_sign(letter) for letter in way) for way in longest_first)
    last = words(concept)[-1:]
    if not last or not is_latin(last[0]):
        return "", rf"(?:{ways})"
    compound = rf"(?:{_PIECE}{_HYPHEN})*(?:{ways})\b{_POSSESSIVE}(?:{_HYPHEN}{_PIECE})*"
    return r"\b", compound


def _sign(letter: str) -> str:
    """A pattern of a letter, and of a hyphen or apostrophe however it is typed."""
    return _HYPHEN if letter == "-" else f"[{APOSTROPHES}]" if letter in APOSTROPHES else re.escape(letter)


def names(text: str, concept: str) -> bool:
    """Whether a text names a concept, by the rule of `ConceptIndex`."""
    return bool(ConceptIndex({concept: ()}).find(text)[0])


def fits(pipe: Any, prompt: str) -> bool:
    """Whether a pipeline reads the whole prompt: its tokenizer cuts what is longer than it takes."""
    return tokens_cut(pipe, [prompt]) == [0]


def parted(name: str) -> bool:
    """Whether `paraphrases` would take a name apart that stands in a prompt."""
    return bool(_PARTED.search(name))


def paraphrases(prompt: str, concept: str, named: Collection[str] = ()) -> list[str]:
    """Other ways to ask for the same picture, told by grammar alone, so that no language model is needed.

    The enumeration in reverse, and the concept named once more at the end; none equal to the prompt, and none that
    takes the name of a concept apart ("black and white").

    Args:
        named: other concepts that the prompt names, and the other names by which it does (`parted`).
    """
    parts = [part.strip() for part in _PARTED.split(prompt) if part.strip()]
    turned, again = ", ".join(reversed(parts)), f"{prompt}, {concept}"
    kept = [other for other in dict.fromkeys((concept, *named)) if names(prompt, other)]
    ways = [text for text in dict.fromkeys((turned, again)) if text != prompt]
    return [text for text in ways if all(names(text, other) for other in kept)]
