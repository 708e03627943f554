"""The words of a prompt, in any script: what tells prompts apart, and what filters look for.

A word is a run of letters and digits with their marks (vowel signs of Hindi and Thai, accents); a sign that is no
punctuation (an emoji, ``+``, ``$``), and the ``#`` of "C#", is a token of its own. Punctuation and spaces separate.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts that are written without spaces between words, as the inside of a set of `regex`."""

# Signs by Unicode that stand for punctuation: bars, tildes, minuses for hyphens and the slashes of fractions.
_AS_PUNCTUATION = r"|~¦\u2044\u2212\u2215\u2223\u223c"
_TOKEN = regex.compile(
    r"(?V1)[\p{L}\p{N}_][\p{L}\p{M}\p{N}_]*"
    rf"|[[\p{{So}}\p{{Sm}}\p{{Sc}}\p{{Emoji_Modifier}}]--[{_AS_PUNCTUATION}]]"
    r"|(?<=\p{L}\p{M}*)#(?![\p{L}\p{N}_])"
)
_VARIATION = regex.compile(r"\p{Variation_Selector}")
"""What asks for another drawing of the same sign."""


def normalised(prompt: str) -> str:
    """A prompt's words in lower case with one space between them; Unicode compatibility forms count as one.

    A prompt without any word is its own text without space around it.
    """
    folded = _folded(prompt)
    return " ".join(_TOKEN.findall(folded)) or folded.strip()


def has_word(phrase: str) -> bool:
    """Whether there is a word or sign in a phrase that can be looked for."""
    return _TOKEN.search(_folded(phrase)) is not None


def holds(prompt: str, phrases: Iterable[str]) -> bool:
    """Whether a prompt holds one of the phrases, as whole words; where words stand without spaces, as whole letters."""
    text = normalised(prompt)
    return any(_pattern(phrase).search(text) for phrase in phrases)


@cache
def _pattern(phrase: str) -> Any:
    unspaced = rf"(?<=[{UNSPACED}]\p{{M}}*)(?!\p{{M}})|(?=[[{UNSPACED}]--\p{{M}}])"
    return regex.compile(rf"(?V1)(?:(?<![^ ])|{unspaced}){regex.escape(normalised(phrase))}(?:(?![^ ])|{unspaced})")


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return str(_VARIATION.sub("", folded))
