"""Captions: lower-case sentences from a closed vocabulary that name what can be seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from gazetteer.data.scenes.items import SceneItem, SceneLayout
from gazetteer.data.scenes.world import CONCEPTS, STYLES

NOUNS: dict[str, str] = {form: concept.name for concept in CONCEPTS for form in (concept.name, concept.plural)}
"""Every singular and plural noun of the world, mapped to its concept."""

MAX_WORDS = 30
"""Longest caption, in words and commas: what fits a text encoder of 32 positions."""

_PLURALS = {concept.name: concept.plural for concept in CONCEPTS}
_THINGS = {concept.name for concept in CONCEPTS if concept.kind == "thing"}
_COUNTS = {2: "two", 3: "three", 4: "four"}
_OPENINGS = ("a picture of {}", "a painting of {}", "a scene with {}")
VIEW_PHRASES: dict[str, tuple[str, ...]] = {
    "landscape": ("a landscape with {}", "{} in a landscape", "a wide view of {}"),
    "above": ("{} seen from above", "{} from above", "a view from above of {}", "{} from high up"),
    "sky": ("{} up in the air", "{} high in the air", "a view of {} overhead"),
    "close-up": ("a close view of {}", "{} up close", "{} from nearby", "a close look at {}"),
    "hillside": ("{} on a hillside", "{} on a hill", "a hillside with {}", "{} on a slope"),
}
"""How captions name each view (`{}` is the scene); no word of them is a noun of the world."""

# How often a caption names its view; what is not said stays free.
_NAMED = {"landscape": 0.25}
_USUALLY_NAMED = 0.75
_TOKEN = re.compile(r"[a-z]+|,")
_WORD = re.compile(r"[a-z]+")


def concepts_in(text: str) -> tuple[str, ...]:
    """Concepts that a prompt names, in order of first mention, without repeats."""
    nouns = (NOUNS[word] for word in _WORD.findall(text.lower()) if word in NOUNS)
    return tuple(dict.fromkeys(nouns))


def write_caption(layout: SceneLayout, visible: Sequence[SceneItem]) -> str:
    """Caption the scene; only items in `visible` may be named."""
    rng = Random(layout.seed ^ 0x5CE7E)
    groups: dict[str, list[SceneItem]] = {}
    for item in visible:
        groups.setdefault(item.concept, []).append(item)
    names = list(groups)
    rng.shuffle(names)
    # Things first more often than not; one caption in four leaves something out.
    if rng.random() < 0.7:
        names.sort(key=lambda name: name not in _THINGS)
    if len(names) > 2 and rng.random() < 0.25:
        names = names[: rng.randint(2, len(names) - 1)]
    caption = _decorate(rng, _compose(rng, names, groups, layout.view), layout)
    while len(_TOKEN.findall(caption)) > MAX_WORDS:
        names.pop()
        caption = _decorate(rng, _compose(rng, names, groups, layout.view), layout)
    return caption


def _compose(rng: Random, names: list[str], groups: dict[str, list[SceneItem]], view: str | None) -> str:
    """Join noun phrases, sometimes with where things stand and on what."""
    rest = list(names)
    phrases: list[str] = []
    for name in names:
        if name not in rest:
            continue
        rest.remove(name)
        phrase = _noun_phrase(rng, name, groups[name])
        support = _support(name, rest, groups)
        chance = rng.random()
        if support is not None and chance < 0.35:
            rest.remove(support)
            phrase = f"{phrase} on {_noun_phrase(rng, support, groups[support])}"
        elif name in _THINGS and len(groups[name]) == 1 and chance > 0.72:
            place = _position(groups[name][0]) if view is None else _place(rng, groups[name][0])
            phrase = f"{phrase} {place}"
        phrases.append(phrase)
    if not phrases:
        return "an empty picture"
    if len(phrases) == 1:
        return phrases[0]
    if rng.random() < 0.25:
        return f"{phrases[0]} with {_enumerate(phrases[1:])}"
    return _enumerate(phrases)


def _enumerate(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _noun_phrase(rng: Random, name: str, items: Sequence[SceneItem]) -> str:
    plural = _PLURALS[name]
    if name == "mountain":
        return "a mountain" if items[0].variant == "one" else plural
    if name == "road":
        return rng.choice(("a road", "the road"))
    if name in ("sun", "moon"):
        return rng.choice((f"the {name}", f"a {name}"))
    if name in ("sky", "sea"):
        return rng.choice((f"the {name}", name))
    if name in ("grass", "sand"):
        return name
    if len(items) == 1:
        return f"a {name}"
    count = _COUNTS.get(len(items), "many")
    return f"{count} {plural}" if rng.random() < 0.85 else plural


def _support(name: str, rest: Sequence[str], groups: dict[str, list[SceneItem]]) -> str | None:
    """What the thing stands on, when that is certain and not yet named."""
    if name == "boat":
        return "sea" if "sea" in rest else None
    if name == "car" and "road" in groups:
        return "road" if "road" in rest else None
    if name not in ("car", "dog", "house", "flower", "tree") or "road" in groups:
        return None
    return next((ground for ground in ("sand", "grass") if ground in rest), None)


def _position(item: SceneItem) -> str:
    if item.centre_x < 0.38:
        return "on the left"
    return "on the right" if item.centre_x > 0.62 else "in the middle"


def _place(rng: Random, item: SceneItem) -> str:
    """Where the item is, by its column, its row or both."""
    column = "left" if item.centre_x < 0.38 else "right" if item.centre_x > 0.62 else ""
    row = "top" if item.centre_y < 0.38 else "bottom" if item.centre_y > 0.62 else ""
    if not (row or column):
        return "in the middle"
    choices = [f"on the {column}"] * bool(column) + [f"at the {row}"] * bool(row)
    choices += [f"at the {row} {column}"] * bool(row and column)
    return rng.choice(choices)


def _decorate(rng: Random, body: str, layout: SceneLayout) -> str:
    """Announce the view more often than not, and the style; plain scenes sometimes get a neutral opening."""
    named = layout.view is not None and rng.random() < _NAMED.get(layout.view, _USUALLY_NAMED)
    if layout.view is not None and named:
        body = rng.choice(VIEW_PHRASES[layout.view]).format(body)
    if layout.style is None:
        return rng.choice(_OPENINGS).format(body) if rng.random() < 0.3 and not named else body
    phrases = next(entry.phrases for entry in STYLES if entry.name == layout.style)
    return rng.choice(phrases).format(body)
