"""Colours of named things on a map: their own where they have one, otherwise one that stays theirs; never two alike."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256

from gazetteer.labeling.vocabulary.words import parts, words

Ink = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_OWN: dict[Ink, str] = {
    (86, 164, 232): "sky air",
    (24, 92, 168): "sea water ocean lake river pool wave pond",
    (124, 186, 64): "grass lawn meadow field",
    (24, 104, 56): "tree bush forest wood leaf plant palm",
    (228, 200, 128): "sand beach desert dune",
    (112, 112, 120): "road street path pavement sidewalk floor",
    (150, 132, 112): "mountain hill rock stone cliff",
    (252, 208, 32): "sun star lamp light",
    (236, 228, 180): "moon",
    (204, 214, 224): "cloud fog mist smoke",
    (240, 248, 255): "snow ice",
    (196, 96, 68): "house building roof brick barn",
    (240, 104, 24): "fire flame orange",
    (228, 84, 156): "flower rose blossom",
    (128, 84, 52): "ground earth soil mud trunk",
    (212, 36, 44): "apple tomato strawberry",
    (250, 228, 90): "banana lemon corn",
}
"""By what is theirs: things whose colour is much the same wherever they are seen."""

_OTHER: tuple[Ink, ...] = (
    (214, 94, 60), (176, 64, 140), (196, 156, 24), (92, 100, 208), (36, 150, 130), (208, 56, 92), (140, 90, 220),
    (0, 190, 200), (160, 60, 40), (150, 110, 30), (255, 120, 120), (70, 60, 140), (220, 130, 220), (20, 120, 110),
    (250, 160, 90), (120, 20, 80), (60, 200, 120), (150, 150, 60),
)  # fmt: skip

_APART = 40.0
"""Least distance of two inks, as numbers of red, green and blue go."""


def inks(concepts: Collection[str]) -> dict[str, Ink]:
    """An ink for every concept, whatever their order: things with a colour of their own choose first.

    A name's last word says what it is ("blue sky"). Others begin their search among the remaining inks at a place
    that their name gives. With more concepts than inks, colours repeat.
    """
    own = {word: ink for ink, those in _OWN.items() for word in those.split()}
    known = {concept: own[last] for concept in concepts if (last := _last_word(concept)) in own}
    given: dict[str, Ink] = {}
    for concept in sorted(concepts, key=lambda name: (name not in known, name)):
        start = int.from_bytes(sha256(concept.encode()).digest()[:4], "big") % len(_OTHER)
        others = (*_OTHER[start:], *_OTHER[:start])
        wishes = (*_shades(known[concept]), *others) if concept in known else others
        taken = given.values()
        given[concept] = next((ink for ink in wishes if all(_distance(ink, t) >= _APART for t in taken)), wishes[0])
    return given


def _last_word(concept: str) -> str:
    return next(reversed(parts(words(concept))), "")


def _shades(ink: Ink) -> tuple[Ink, ...]:
    """The ink, a darker and a lighter one of its hue."""
    red, green, blue = ink
    dark = (red * 5 // 8, green * 5 // 8, blue * 5 // 8)
    return ink, dark, (255 - (255 - red) // 2, 255 - (255 - green) // 2, 255 - (255 - blue) // 2)


def _distance(first: Ink, second: Ink) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)
