"""Where everything stands in a scene seen from one of several views.

Coordinates are fractions of the picture: x to the right, y downwards, both in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from gazetteer.data.scenes.items import SceneItem, SceneLayout, overlap
from gazetteer.data.scenes.views.plans import Plan, Resident, above, close_up, hillside, landscape, sky
from gazetteer.data.scenes.world import STYLE_NAMES, VIEWS

SALT = 0x5CE2E5
"""Keeps the scenes of a seed apart from the plain landscape of the same seed."""

# How often each view is drawn when all of them are asked for.
_FREQUENCY: dict[str, int] = {"landscape": 32, "above": 26, "sky": 16, "close-up": 13, "hillside": 13}
_PLANNERS: dict[str, Callable[[Random], Plan]] = {
    "landscape": landscape, "above": above, "sky": sky, "close-up": close_up, "hillside": hillside,
}  # fmt: skip

# Width over height of each thing, and the smallest and largest height of a whole one.
_SHAPES: dict[str, tuple[float, float, float, float]] = {
    "sun": (1.0, 1.0, 0.17, 0.55),
    "moon": (1.0, 1.0, 0.17, 0.55),
    "cloud": (1.7, 2.3, 0.14, 0.36),
    "tree": (0.60, 0.80, 0.24, 0.80),
    "house": (0.95, 1.25, 0.22, 0.66),
    "car": (1.75, 2.05, 0.15, 0.46),
    "boat": (0.85, 1.05, 0.22, 0.70),
    "dog": (1.10, 1.25, 0.20, 0.62),
    "flower": (0.60, 0.72, 0.22, 0.78),
    "balloon": (0.70, 0.80, 0.22, 0.75),
}
_TRIES = 12


@dataclass
class _Placing:
    """Things placed so far, and the stream of random numbers that places them."""

    rng: Random
    placed: list[SceneItem] = field(default_factory=list)

    def size(self, concept: str, crowd: int, heights: tuple[float, float] | None) -> tuple[float, float]:
        """Width and height, uniform on a log scale; company makes things smaller."""
        narrow, wide, low, high = _SHAPES[concept]
        low, high = heights or (low, high)
        high = max(low * 1.15, high * {1: 1.0, 2: 0.8, 3: 0.66}.get(crowd, 0.56))
        height = low * (high / low) ** (self.rng.random() ** 0.8)
        return height * self.rng.uniform(narrow, wide), height

    def put(self, concept: str, crowd: int, resident: Resident) -> None:
        """Place a thing where it may be, unless it hides or is hidden by another."""
        for attempt in range(_TRIES):
            width, height = self.size(concept, crowd + attempt // 4, resident.heights)
            corner = resident.place(self.rng, width, height)
            if corner is None:
                continue
            box = (corner[0], corner[1], corner[0] + width, corner[1] + height)
            if all(overlap(box, other.box) < 0.12 for other in self.placed):
                look, flip = self.rng.getrandbits(32), self.rng.random() < 0.5
                self.placed.append(SceneItem(concept, box, flip, look, "drawn"))
                return


def sample_view(seed: int, views: Sequence[str]) -> SceneLayout:
    """Plan the scene of `seed` in one of `views`; the same seed and views give the same plan in every process."""
    unknown = sorted(set(views) - set(VIEWS))
    if unknown:
        raise ValueError(f"unknown view {unknown[0]!r}; views are {', '.join(VIEWS)}")
    rng = Random(seed ^ SALT)
    style = rng.choice(STYLE_NAMES) if rng.random() < 0.6 else None
    names = [name for name in VIEWS if name in views]
    view = rng.choices(names, [_FREQUENCY[name] for name in names])[0]
    plan = _PLANNERS[view](rng)
    placing = _Placing(rng)
    wanted = _wanted(rng, plan, style)
    for concept in wanted:
        placing.put(concept, len(wanted), plan.residents[concept])
    things = sorted(placing.placed, key=lambda item: (item.concept not in _FLYING, item.box[3]))
    if view == "above":  # what flies is nearest to the eye
        things.sort(key=lambda item: item.concept in _FLYING)
    return SceneLayout(seed, style, plan.ground, plan.horizon, (*plan.regions, *things), view)


_FLYING = {"sun", "moon", "cloud", "balloon"}


def _wanted(rng: Random, plan: Plan, style: str | None) -> list[str]:
    """Which things the scene shall have: often one alone, sometimes several of a kind, never sun and moon."""
    light = "moon" if rng.random() < {"night": 0.92, "sunset": 0.12}.get(style or "", 0.38) else "sun"
    weights = {name: resident.weight for name, resident in plan.residents.items()}
    if {"sun", "moon"} <= set(weights):
        del weights["sun" if light == "moon" else "moon"]
    count = rng.choices((1, 2, 3, 4), plan.crowds)[0]
    wanted: list[str] = []
    while len(wanted) < count and weights:
        name = rng.choices(list(weights), list(weights.values()))[0]
        wanted.append(name)
        if name in ("sun", "moon"):
            del weights[name]
    if count > 1 and wanted[0] not in ("sun", "moon") and rng.random() < 0.3:
        wanted = [wanted[0]] * count
    return wanted
