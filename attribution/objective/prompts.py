"""Prompts said another way: without a concept, or in other words with it."""

from __future__ import annotations

import re
from typing import Any

from gazetteer.diffusion.draw import tokens_cut
from gazetteer.labeling.vocabulary.concept_index import occurs
from gazetteer.labeling.vocabulary.words import is_latin, spellings, words

_COUNT = r"(?:(?:an?|the|one|two|three|four|five|six|many|some|several) )?"
_PLACE = r"(?: (?:on the (?:left|right)|in the middle))?"


def without(prompt: str, concept: str) -> str:
    """The prompt without a concept: its word or plural goes, with the article before it and the place behind.

    However the word is written (`spellings`). A word for the style of the whole picture takes its preposition with it
    ("at night", "in the style of neon").
    """
    start, word = _written(concept)
    gone = re.sub(rf"\b(?:at|in|in the style of) {_COUNT}{word}", "", prompt, flags=re.IGNORECASE)
    gone = re.sub(rf"{start}{_COUNT}{word}(?: picture)?(?: of\b)?{_PLACE}", "", gone, flags=re.IGNORECASE)
    gone = re.sub(r"\b(?:with|and|on|of)\s*(?=,|$|\b(?:with|and)\b)", "", gone.strip())
    gone = re.sub(r",\s*(and|with)\b", r" \1", gone)
    gone = re.sub(r"^\s*(?:,|and|with|on)\s+", "", gone)
    return re.sub(r"\s*,(?:\s*,)*", ",", re.sub(r"\s+", " ", gone)).strip(" ,")


def _written(concept: str) -> tuple[str, str]:
    """Patterns of where a concept's name may begin and of the name; scripts without spaces have no such borders."""
    ways = "|".join(re.escape(way) for way in sorted(spellings(concept), key=len, reverse=True))
    last = words(concept)[-1:]
    return (r"\b", rf"(?:{ways})\b") if last and is_latin(last[0]) else ("", rf"(?:{ways})")


def names(text: str, concept: str) -> bool:
    """Whether a text names a concept, by its word or its plural."""
    return occurs(concept, [words(text)])


def fits(pipe: Any, prompt: str) -> bool:
    """Whether a pipeline reads the whole prompt: its tokenizer cuts what is longer than it takes."""
    return tokens_cut(pipe, [prompt]) == [0]


def paraphrases(prompt: str, concept: str) -> list[str]:
    """Other ways to ask for the same picture, told by grammar alone, so that no language model is needed.

    The enumeration in reverse, and the concept named once more at the end; none equal to the prompt. Every concept
    that the prompt names is named in them too.
    """
    parts = [part.strip() for part in re.split(r",| and ", prompt) if part.strip()]
    turned, again = ", ".join(reversed(parts)), f"{prompt}, {concept}"
    return [text for text in dict.fromkeys((turned, again)) if text != prompt]
