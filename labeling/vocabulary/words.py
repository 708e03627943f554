"""The words of a text, and the ways to write a phrase: one rule for prompts, concepts, nouns and tags in any script.

Two texts are compared in Unicode's form NFKC with case folded, typographic dashes and apostrophes made plain and
invisible characters taken out, so that full-width "ＤＯＧ" is "dog" and "Straße" is "strasse". Accents count: "café" is
not "cafe".

A word is a run of letters, marks and digits, with hyphens and apostrophes inside it; "dog's" is a further way to write
dog, and a compound with hyphens holds its parts. Chinese, Japanese (kanji and hiragana), Thai, Lao, Khmer and Burmese
are written without spaces: there every letter with its marks is a word of its own, so that "犬が走る" names 犬.
Katakana and Hangul are written in words; Korean particles stay on them, and no script but the Latin one gets a plural:
list such forms as synonyms.

A phrase may be written with spaces, with hyphens or as one word, in the singular or the English plural: "hot dog",
"hot-dogs", "hotdog".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import regex

from gazetteer.data.inputs.prompt_words import UNSPACED

_RUN = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+"
_ONE = rf"(?V1)[{UNSPACED}]\p{{M}}*|{_RUN}(?:['-]{_RUN})*"
_WORD, _WORD_OR_SIGN = regex.compile(_ONE), regex.compile(rf"{_ONE}|[^\w\s]")
_PART = regex.compile(_ONE.replace("['-]", "'"))
APOSTROPHES = "'‘’‛ʼʻ′`´＇"
"""What is typed for an apostrophe."""
_PLAIN = regex.compile(rf"(?P<dash>\p{{Pd}})|(?P<apostrophe>[{APOSTROPHES}])|\p{{Cf}}")
_ACUTE = dict.fromkeys(map(ord, "\u00b4\u1ffd"), "'")  # which NFKC takes for a space with an accent
_MELTING = regex.compile(r"[\p{M}\p{Cf}\u1160-\u11ff]")
_INVISIBLE_END = regex.compile(r"\p{Cf}+\Z")
_DASH = regex.compile(r"\p{Pd}")
_LATIN = regex.compile(r"\p{Latin}")


def tidy(text: str) -> str:
    """A phrase as it is stored and shown: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text.translate(_ACUTE)).lower().split())


def spaced(phrase: str) -> str:
    """A phrase as `tidy` has it, with spaces for the hyphens inside it."""
    return tidy(_DASH.sub(" ", phrase))


def words(text: str) -> list[str]:
    """The words of a text in their order, case folded, hyphens and apostrophes kept inside them."""
    return list(_WORD.findall(_folded(text)))


def word_spans(text: str, apart: bool = False) -> list[tuple[str, int, int]]:
    """As `words`, with where each begins and ends among the characters of the text as it is written, in order.

    No character is in two of them: words that share one are one entry, called by the folded text that holds them, so
    that "½" is "1⁄2", of which `words` makes 1 and 2.

    Args:
        apart: those with hyphens taken apart, as `parts` does.
    """
    clusters = _clusters(text)
    pieces = [_folded(text[start:end]) for start, end in clusters]
    owner = [number for number, piece in enumerate(pieces) for _ in piece]
    folded = "".join(pieces)
    spans: list[tuple[int, int, int, int]] = []
    for match in (_PART if apart else _WORD).finditer(folded):
        first, last = match.span()
        start = clusters[owner[first]][0]
        low, high = clusters[owner[last - 1]]
        end = low + len(_INVISIBLE_END.sub("", text[low:high]))
        if spans and start < spans[-1][3]:
            first, _, start, _ = spans.pop()
        spans.append((first, last, start, end))
    return [(folded[first:last], start, end) for first, last, start, end in spans]


def _clusters(text: str) -> list[tuple[int, int]]:
    """Stretches of a text, which folded one by one are the whole folded: a letter with all that may melt into it."""
    starts = [place for place, letter in enumerate(text) if place == 0 or not _melts(letter)]
    return list(pairwise([*starts, len(text)]))


def _melts(letter: str) -> bool:
    """Whether a letter may become one with those before it: marks, Hangul's vowels and finals, what is invisible."""
    return _MELTING.match(unicodedata.normalize("NFKD", letter.translate(_ACUTE))) is not None


def words_and_signs(text: str) -> list[str]:
    """As `words`, with every other sign that is no space in its place."""
    return list(_WORD_OR_SIGN.findall(_folded(text)))


def _folded(text: str) -> str:
    plain = _PLAIN.sub(_plainly, unicodedata.normalize("NFKC", text.translate(_ACUTE)))
    return unicodedata.normalize("NFKC", plain.casefold())


def _plainly(match: Any) -> str:
    return "-" if match["dash"] else "'" if match["apostrophe"] else ""


def parts(tokens: Sequence[str]) -> tuple[str, ...]:
    """Words with those that have hyphens taken apart."""
    return tuple(part for token in tokens for part in token.split("-"))


def owner_of(word: str) -> str:
    """A word without the 's of a possessive."""
    return word.removesuffix("'s")


def stand_in(wanted: Sequence[str], held: Sequence[str]) -> bool:
    """Whether words stand among others in a row, the last of them perhaps with a possessive 's; none stand nowhere."""
    *first, last = wanted or [""]
    ends = range(len(first), len(held))
    return any(last in (held[end], owner_of(held[end])) and list(held[end - len(first) : end]) == first for end in ends)


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
