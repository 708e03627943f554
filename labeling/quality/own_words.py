"""What a person's own words name of a run's labels, where a label's wording is one of several that mean the same.

A label is named by its name or one of the run's synonyms (labeling/vocabulary/concept_index.py), among whatever else is
said, and also

- in British or American spelling (`_SPELLINGS`): "center" is centre, "watercolor" is watercolour;
- a look of several words by the last of them, where that is the last of no other name and says something by itself:
  "sketch" is pencil sketch, "style" is nothing;
- a built-in place by everyday words for it: "the bottom", "lower side" are bottom edge and bottom half, between which
  "edge" and "half" decide, "upper left corner" is top left, "the middle" is centre. They are taken for a place only
  where they are not said of something else: "the top of the picture" is one, "the top of a tree" and "top hat" are not.

What an answer denies it does not name: "not sky but sea" names sea, "sky without clouds" sky. A denial reaches to the
next sign or "but"; a word of denial that a label itself is called by ("no entry sign") denies nothing.

An answer that names several labels agrees with each of them by its share (`credit`): who lists the whole vocabulary
says no more than who guesses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from gazetteer.labeling.rules.kinds.places import PLACES
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex
from gazetteer.labeling.vocabulary.synonyms import Synonyms
from gazetteer.labeling.vocabulary.words import parts, words, words_and_signs

_SPELLINGS = (
    ("colour", "color"), ("grey", "gray"), ("centre", "center"), ("theatre", "theater"), ("fibre", "fiber"),
    ("harbour", "harbor"), ("armour", "armor"), ("neighbour", "neighbor"), ("aeroplane", "airplane"),
    ("plough", "plow"), ("jewellery", "jewelry"), ("pyjama", "pajama"), ("moustache", "mustache"),
    ("doughnut", "donut"), ("chequer", "checker"), ("catalogue", "catalog"), ("mould", "mold"),
)  # fmt: skip
"""British and American, also inside words; whatever is compared is written the second way."""

_MEANS = {
    "top": "top", "upper": "top", "topmost": "top", "uppermost": "top",
    "bottom": "bottom", "lower": "bottom", "bottommost": "bottom", "lowermost": "bottom",
    "left": "left", "leftmost": "left", "right": "right", "rightmost": "right",
    "centre": "centre", "center": "centre", "middle": "centre", "central": "centre",
    "edge": "edge", "edges": "edge", "border": "edge", "borders": "edge", "margin": "edge", "margins": "edge",
    "rim": "edge", "strip": "edge", "half": "half", "halves": "half",
    "corner": "corner", "corners": "corner", "quadrant": "corner", "quadrants": "corner", "quarter": "corner",
    "side": "", "sides": "", "part": "", "parts": "", "area": "", "region": "", "most": "", "very": "", "far": "",
}  # fmt: skip
"""Everyday words of places, and what they mean; nothing: they leave a place as it is."""

_FRAME = frozenset(("picture", "image", "photo", "frame", "scene", "canvas", "pictures", "images", "photos"))
_ARTICLES = frozenset(("a", "an", "the"))
_SMALL = frozenset(("and", "or", "at", "in", "on", "to", "near", "along", "towards", "toward", "with", "by", "of"))
_SAYS_NOTHING = _FRAME | {"style", "look", "art", "light", "lighting", "effect", "mood"}


_TURNS = re.compile(
    r"(?P<denies>(?<![\w-])(?:(?:any|every)thing but|all but|(?:other|rather) than|instead of|not|no|non|never|without"
    r"|neither|nor|none|nothing|cannot|except|excluding|unlike|(?:is|are|was|do|does|did|ca|wo)n?['’]?t|\w+n['’]t)"
    r"(?![\w-]))|(?P<ends>[,;.:!?()/\n–—]|\s-\s|(?<![\w-])(?:but|only|though|however|rather|instead)(?![\w-]))",
    re.IGNORECASE,
)
"""Where an answer begins to deny something, and where it ends to."""


class OwnWords:
    """Finds the labels that a person's answer names."""

    def __init__(self, names: Collection[str], looks: Collection[str] = (), synonyms: Synonyms | None = None) -> None:
        """names: of concepts, looks and places; looks: those of them, and others, that are looks of a picture."""
        self._names = frozenset(names)
        others = {name: [*(synonyms or {}).get(name, ()), *_head({*names, *looks}, looks, name)] for name in names}
        self._written: dict[str, set[str]] = {}
        for name in names:
            self._written.setdefault(_american(name), set()).add(name)
        self._index = ConceptIndex({
            written: [_american(other) for name in sorted(same) for other in others[name]]
            for written, same in self._written.items()
        })  # fmt: skip

        phrases = (*names, *(other for same in others.values() for other in same))
        self._called = frozenset(word for phrase in phrases for word in words(phrase))

    def named(self, answer: str) -> set[str]:
        """The names that an answer gives."""
        return set().union(*self.mentions(answer))

    def mentions(self, answer: str) -> list[set[str]]:
        """The names that an answer gives, together those between which one and the same wording leaves the choice."""
        said = [self._written[written] for written in sorted(self._index.find(_american(answer))[0])]
        return apart([*said, *(places & self._names for places in _place_mentions(answer))])

    def affirmed(self, answer: str) -> str:
        """What an answer says, without what it denies."""
        kept, start, denied = [], 0, False
        for turn in _TURNS.finditer(answer):
            if turn["denies"] and self._called & {*turn["denies"].casefold().split()}:
                continue
            kept += [] if denied else [answer[start : turn.start()]]
            kept.append(turn["ends"] or " , ")
            start, denied = turn.end(), bool(turn["denies"])
        return "".join([*kept, *([] if denied else [answer[start:]])])


def apart(mentions: Iterable[set[str]]) -> list[set[str]]:
    """Mentions without a name in common: those that have one are one; without names they are none."""
    separate: list[set[str]] = []
    for mention in mentions:
        if mention:
            same = [other for other in separate if other & mention]
            separate = [other for other in separate if not other & mention] + [mention.union(*same)]
    return separate


def credit(concept: str, mentions: Sequence[set[str]]) -> float:
    """How far an answer with these mentions (`apart`) agrees with a label: 1 of one, 1/2 of two, 0 of others."""
    return any(concept in mention for mention in mentions) / max(len(mentions), 1)


def places_named(answer: str) -> set[str]:
    """The built-in places (`PLACES`) for which an answer has everyday words."""
    return set().union(*_place_mentions(answer))


def _place_mentions(answer: str) -> list[set[str]]:
    """The places of every wording that stands for some, in order."""
    tokens = [token for token in _parts_of(answer) if token not in _ARTICLES]
    # "the left hand side" is a place and "the left hand" is none.
    tokens = [token for token, after in pairwise([*tokens, ""]) if (token, after) != ("hand", "side")]
    places: list[set[str]] = []
    start = 0
    while start < len(tokens):
        end = start
        while end < len(tokens) and tokens[end] in _MEANS:
            end += 1
        if end > start and _by_itself(tokens, start, end):
            places.append(_places([_MEANS[token] for token in tokens[start:end]]))
        start = max(end, start + 1)
    return places


def _parts_of(answer: str) -> tuple[str, ...]:
    """Words and signs of an answer in order, those with hyphens taken apart."""
    return tuple(part for token in words_and_signs(answer) for part in token.split("-"))


def _by_itself(tokens: Sequence[str], start: int, end: int) -> bool:
    """Whether words of a place are said of the picture, and not of what stands before or after them."""
    before, after = tokens[max(start - 1, 0) : start], tokens[end : end + 2]
    if before and not _apart(before[0]):
        return False
    if after[:1] == ["of"]:
        return after[1:] == [] or after[1] in _FRAME
    return not after or _apart(after[0])


def _apart(token: str) -> bool:
    return token in _SMALL or token in _FRAME or not words(token)


def _places(meant: Sequence[str]) -> set[str]:
    """The places that meanings of words in a row come to; none where they could be several that are no edge and half
    of one side."""
    upright = [word for word in ("top", "bottom") if word in meant]
    across = [word for word in ("left", "right") if word in meant]
    extents = {word for word in meant if word in ("edge", "half", "corner")}
    sides = [*upright, *across]
    if "centre" in meant:
        return {"centre"} if not sides and not extents else set()
    if len(upright) == len(across) == 1:
        return {" ".join(sides)} if extents <= {"corner"} else set()
    if len(sides) != 1 or "corner" in extents or len(extents) > 1:
        return set()
    return {f"{sides[0]} {extent}" for extent in extents or ("edge", "half")} & PLACES.keys()


def _head(names: Collection[str], looks: Collection[str], name: str) -> list[str]:
    """The last word of a look of several words, where it is the last of no other name and says something."""
    own = parts(words(name))
    last = Counter(parts(words(other))[-1:] for other in names)
    alone = name in looks and len(own) > 1 and last[own[-1:]] == 1 and own[-1] not in _SAYS_NOTHING
    return [own[-1]] if alone else []


def _american(text: str) -> str:
    text = text.casefold()
    for british, american in _SPELLINGS:
        text = text.replace(british, american)
    return text
