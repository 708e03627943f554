"""The words of a text, and the ways to write a phrase: one rule for prompts, concepts, nouns and tags in any script.

Two texts are compared in Unicode's form NFKC with case folded, typographic dashes and apostrophes made plain and
invisible characters taken out, so that full-width "ＤＯＧ" is "dog" and "Straße" is "strasse". Accents count: "café" is
not "cafe".

A word is a run of letters, marks and digits, with hyphens and apostrophes inside it. Chinese, Japanese (kanji and
hiragana), Thai, Lao, Khmer and Burmese are written without spaces: there every letter with its marks is a word of its
own, so that "犬が走る" names 犬. Katakana and Hangul are written in words; Korean particles stay on them, and no script
but the Latin one gets a plural: list such forms as synonyms.

A phrase may be written with spaces, with hyphens or as one word, in the singular or the English plural: "hot dog",
"hot-dogs", "hotdog".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_RUN = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+"
_ONE = rf"(?V1)[{_UNSPACED}]\p{{M}}*|{_RUN}(?:['-]{_RUN})*"
_WORD, _WORD_OR_SIGN = regex.compile(_ONE), regex.compile(rf"{_ONE}|[^\w\s]")
_PLAIN = regex.compile(r"(?P<dash>\p{Pd})|(?P<apostrophe>[‘’ʼ＇])|\p{Cf}")
_DASH = regex.compile(r"\p{Pd}")
_LATIN = regex.compile(r"\p{Latin}")


def tidy(text: str) -> str:
    """A phrase as it is stored and shown: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def spaced(phrase: str) -> str:
    """A phrase as `tidy` has it, with spaces for the hyphens inside it."""
    return tidy(_DASH.sub(" ", phrase))


def words(text: str) -> list[str]:
    """The words of a text in their order, case folded, hyphens and apostrophes kept inside them."""
    return list(_WORD.findall(_folded(text)))


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """As `words`, with where each begins and ends among the characters of the text as it is written."""
    pieces = [_folded(letter) for letter in text]
    owner = [place for place, piece in enumerate(pieces) for _ in piece]
    places = []
    for match in _WORD.finditer("".join(pieces)):
        start, end = owner[match.start()], owner[match.end() - 1] + 1
        places.append(("".join(words(text[start:end])), start, end))
    return places


def words_and_signs(text: str) -> list[str]:
    """As `words`, with every other sign that is no space in its place."""
    return list(_WORD_OR_SIGN.findall(_folded(text)))


def _folded(text: str) -> str:
    plain = _PLAIN.sub(_plainly, unicodedata.normalize("NFKC", text))
    return unicodedata.normalize("NFKC", plain.casefold())


def _plainly(match: Any) -> str:
    return "-" if match["dash"] else "'" if match["apostrophe"] else ""


def parts(tokens: Sequence[str]) -> tuple[str, ...]:
    """Words with those that have hyphens taken apart."""
    return tuple(part for token in tokens for part in token.split("-"))


def is_latin(word: str) -> bool:
    """Whether a word has a letter of the Latin script."""
    return _LATIN.search(word) is not None


@cache
def forms(phrase: str) -> tuple[str, ...]:
    """A phrase's singular and, where its last word is of the Latin script, its English plural."""
    tokens = words(phrase)
    if not tokens or not is_latin(tokens[-1]):
        return (phrase,)
    return phrase, _engine().plural_noun(phrase)


def spellings(phrase: str) -> tuple[str, ...]:
    """The ways to write a phrase: with spaces, with hyphens and as one word, each in the singular and the plural."""
    spellings = []
    for form in forms(phrase):
        split = parts(words(form))
        spellings += [form, *(joiner.join(split) for joiner in (" ", "-", ""))]
    return tuple(dict.fromkeys(spellings))


@cache
def _engine() -> Any:
    with _types_unchecked():
        import inflect

        return inflect.engine()


@contextmanager
def _types_unchecked() -> Iterator[None]:
    """Without typeguard, which compiles inflect anew when that is imported: two seconds of every worker's start."""
    try:
        import typeguard
    except ImportError:  # an inflect that does without
        yield
        return
    checked = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked
