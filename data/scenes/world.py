"""The words of the Scenes world: its concepts, its styles and its seed ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRAIN_SEEDS = range(0, 10**9)
"""Scenes that models may be trained on."""

EVAL_SEEDS = range(10**9, 2 * 10**9)
"""Scenes and prompts that no model is trained on."""

PICTURE_SIZE = 128
"""Default width and height of a rendered scene, in pixels."""


@dataclass(frozen=True)
class Concept:
    """A noun of the world; `stuff` fills regions, `thing`s can be counted."""

    name: str
    kind: Literal["stuff", "thing"]
    plural: str


@dataclass(frozen=True)
class Style:
    """A look of the whole picture and the caption phrases (`{}` is the scene) that announce it."""

    name: str
    phrases: tuple[str, ...]


CONCEPTS: tuple[Concept, ...] = (
    Concept("sky", "stuff", "skies"),
    Concept("grass", "stuff", "grasses"),
    Concept("sea", "stuff", "seas"),
    Concept("sand", "stuff", "sands"),
    Concept("road", "stuff", "roads"),
    Concept("mountain", "stuff", "mountains"),
    Concept("sun", "thing", "suns"),
    Concept("moon", "thing", "moons"),
    Concept("cloud", "thing", "clouds"),
    Concept("tree", "thing", "trees"),
    Concept("house", "thing", "houses"),
    Concept("car", "thing", "cars"),
    Concept("boat", "thing", "boats"),
    Concept("dog", "thing", "dogs"),
    Concept("flower", "thing", "flowers"),
    Concept("balloon", "thing", "balloons"),
)

STYLES: tuple[Style, ...] = (
    Style("night", ("{} at night", "a night picture of {}", "night, {}")),
    Style("sunset", ("{} at sunset", "a sunset picture of {}", "sunset, {}")),
    Style(
        "pencil sketch",
        ("a pencil sketch of {}", "{} in the style of a pencil sketch", "{}, pencil sketch"),
    ),
    Style(
        "watercolour",
        ("a watercolour of {}", "{} in the style of a watercolour", "{}, watercolour"),
    ),
    Style("winter", ("{} in winter", "a winter picture of {}", "winter, {}")),
    Style("neon", ("{} in neon", "a neon picture of {}", "{} in the style of neon")),
)

VIEWS: tuple[str, ...] = ("landscape", "above", "sky", "close-up", "hillside")
"""From where a scene can be seen; a tuple of some of them is what `views` means everywhere.

No views at all stands for the plain landscape with a horizon; `weights.world_views` says what models were trained on.
"""

CONCEPT_NAMES: tuple[str, ...] = tuple(concept.name for concept in CONCEPTS)
STYLE_NAMES: tuple[str, ...] = tuple(style.name for style in STYLES)
