"""Where everything in a scene stands, before anything is painted.

Coordinates are fractions of the picture: x to the right, y downwards, both in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gazetteer.data.scenes.items import Box, SceneItem, SceneLayout, overlap
from gazetteer.data.scenes.views.layout import sample_view
from gazetteer.data.scenes.world import STYLE_NAMES

# Smallest and largest height, and width over height, of each thing.
_SHAPES: dict[str, tuple[float, float, float, float]] = {
    "sun": (0.18, 0.32, 1.0, 1.0),
    "moon": (0.17, 0.30, 1.0, 1.0),
    "cloud": (0.14, 0.23, 1.7, 2.4),
    "tree": (0.32, 0.58, 0.58, 0.80),
    "house": (0.30, 0.46, 0.95, 1.3),
    "car": (0.17, 0.26, 1.8, 2.1),
    "boat": (0.28, 0.46, 0.85, 1.05),
    "dog": (0.21, 0.34, 1.15, 1.3),
    "flower": (0.24, 0.42, 0.60, 0.72),
    "balloon": (0.28, 0.44, 0.70, 0.80),
}

# What may stand where, with its relative frequency.
_RESIDENTS: dict[str, dict[str, int]] = {
    "meadow": {"tree": 4, "house": 4, "dog": 4, "flower": 4, "car": 1},
    "road": {"tree": 3, "house": 3, "car": 7, "dog": 2, "flower": 2},
    "beach": {"boat": 5, "dog": 3, "tree": 2, "house": 2, "flower": 1, "car": 1},
    "sea": {"boat": 8},
    "dunes": {"house": 3, "dog": 3, "tree": 3, "flower": 3, "car": 2},
}
_CLOSE_UPS: tuple[str, ...] = ("house", "tree", "flower", "dog", "car")


def sample_layout(seed: int, views: Sequence[str] = ()) -> SceneLayout:
    """Plan the scene of `seed`, seen from one of `views`; the same seed gives the same plan in every process.

    Without views it is the plain landscape with a horizon.
    """
    if views:
        return sample_view(seed, views)
    rng = Random(seed)
    style = rng.choice(STYLE_NAMES) if rng.random() < 0.6 else None
    ground = rng.choices(tuple(_RESIDENTS), (30, 22, 22, 14, 12))[0]
    horizon = _sample_horizon(rng)
    close_up = ground != "sea" and rng.random() < 0.16
    regions = _regions(rng, ground, horizon)
    placed: list[SceneItem] = []
    if horizon > 0.22:
        placed += _sky_things(rng, horizon, style)
    things = _ground_things(rng, ground, horizon, regions, close_up, placed)
    things.sort(key=lambda item: item.box[3])
    return SceneLayout(seed, style, ground, horizon, (*regions, *placed, *things))


def _sample_horizon(rng: Random) -> float:
    """Height of the horizon; a tenth of the scenes have (almost) no sky."""
    if rng.random() < 0.1:
        low = rng.uniform(0.0, 0.12)
        # Without a sky the ground starts above the picture, or its wavy edge would show.
        return low if low >= 0.04 else -0.04
    return rng.uniform(0.22, 0.74)


def _region(rng: Random, concept: str, top: float, variant: str = "") -> SceneItem:
    return SceneItem(concept, (0.0, top, 1.0, 1.0), rng.random() < 0.5, rng.getrandbits(32), variant)


def _regions(rng: Random, ground: str, horizon: float) -> list[SceneItem]:
    """Sky, mountains and grounds, back to front; later ones cover earlier ones."""
    regions = [] if horizon < 0 else [_region(rng, "sky", 0.0)]
    if horizon > 0.15 and rng.random() < 0.38:
        regions.append(_mountain(rng, horizon))
    below = 1.0 - horizon
    if ground == "meadow":
        regions.append(_region(rng, "grass", horizon))
    elif ground == "dunes":
        regions.append(_region(rng, "sand", horizon))
    elif ground == "sea":
        regions.append(_region(rng, "sea", horizon))
        if rng.random() < 0.25:
            regions.append(_region(rng, "grass", 1.0 - rng.uniform(0.15, 0.3) * below, "shore"))
    elif ground == "beach":
        regions.append(_region(rng, "sea", horizon))
        regions.append(_region(rng, "sand", horizon + rng.uniform(0.35, 0.7) * below, "shore"))
    else:
        regions.append(_region(rng, "grass", horizon))
        regions.append(_road(rng, horizon))
    return regions


def _mountain(rng: Random, horizon: float) -> SceneItem:
    """One or several peaks that may rise over more than half of the picture."""
    variant = rng.choice(("one", "several"))
    height = min(rng.uniform(0.2, 0.62), horizon * 0.92)
    width = rng.uniform(0.6, 1.1) if variant == "one" else rng.uniform(0.9, 1.3)
    left = rng.uniform(-0.2, 1.2 - width)
    box = (left, horizon - height, left + width, horizon + 0.04)
    return SceneItem("mountain", box, rng.random() < 0.5, rng.getrandbits(32), variant)


def _road(rng: Random, horizon: float) -> SceneItem:
    """A road across the picture, or one that runs towards the horizon."""
    below = 1.0 - horizon
    if rng.random() < 0.55:
        thickness = max(0.16, rng.uniform(0.3, 0.5) * below)
        top = horizon + rng.uniform(0.15, 0.9) * max(0.0, below - thickness)
        return SceneItem("road", (0.0, top, 1.0, top + thickness), False, rng.getrandbits(32), "across")
    left = rng.uniform(-0.1, 0.5)
    box = (left, horizon, left + rng.uniform(0.55, 0.8), 1.0)
    return SceneItem("road", box, rng.random() < 0.5, rng.getrandbits(32), "away")


def _sky_things(rng: Random, horizon: float, style: str | None) -> list[SceneItem]:
    """Sun or moon (never both), clouds and balloons."""
    wanted: list[str] = []
    moon_fraction = {"night": 0.95, "sunset": 0.05}.get(style or "", 0.2)
    if rng.random() < 0.62:
        wanted.append("moon" if rng.random() < moon_fraction else "sun")
    wanted += ["cloud"] * rng.choices((0, 1, 2, 3), (40, 33, 19, 8))[0]
    wanted += ["balloon"] * rng.choices((0, 1, 2), (74, 18, 8))[0]
    placed: list[SceneItem] = []
    for concept in wanted:
        for _ in range(6):
            width, height = _sample_size(rng, concept, min(1.0, 0.55 + horizon))
            top = rng.uniform(0.0, max(0.02, horizon - height * 0.9))
            left = rng.uniform(-0.04, 1.04 - width)
            if _try_place(rng, concept, (left, top, left + width, top + height), placed, 0.12):
                break
    return placed


def _sample_size(rng: Random, concept: str, scale: float = 1.0) -> tuple[float, float]:
    low, high, narrow, wide = _SHAPES[concept]
    height = max(low * 0.9, rng.uniform(low, high) * scale)
    return height * rng.uniform(narrow, wide), height


def _ground_things(
    rng: Random, ground: str, horizon: float, regions: list[SceneItem], close_up: bool, sky: list[SceneItem]
) -> list[SceneItem]:
    """Everything that stands, drives or floats; kept apart so that all of it can be seen."""
    names, weights = zip(*_RESIDENTS[ground].items(), strict=True)
    placed: list[SceneItem] = []
    wanted = rng.choices(names, weights, k=rng.choices((1, 2, 3, 4), (22, 36, 28, 14))[0])
    if rng.random() < 0.25:
        wanted = [wanted[0]] * len(wanted)
    if close_up:
        wanted = [rng.choice(_CLOSE_UPS), *wanted[:1]]
    for index, concept in enumerate(wanted):
        for _ in range(8):
            scale = rng.uniform(1.5, 1.95) if close_up and index == 0 else 1.0
            width, height = _sample_size(rng, concept, scale)
            base = _base(rng, concept, horizon, regions, height)
            left = rng.uniform(-0.06, 1.06 - width)
            box = (left, base - height, left + width, base)
            if not any(overlap(box, other.box) > 0.4 for other in sky) and _try_place(rng, concept, box, placed, 0.15):
                break
    return placed


def _base(rng: Random, concept: str, horizon: float, regions: list[SceneItem], height: float) -> float:
    """The y at which a thing touches its ground."""
    tops = {region.concept: region.box for region in regions}
    if concept == "boat":
        end = tops["sand"][1] if "sand" in tops else 0.97
        return rng.uniform(min(horizon + 0.06, end), max(horizon + 0.08, end))
    if concept == "car" and "road" in tops:
        _, top, _, bottom = tops["road"]
        return rng.uniform(top + 0.5 * (bottom - top), min(0.98, bottom - 0.02))
    start = horizon + 0.03
    for ground in ("sand", "grass"):
        if ground in tops and "sea" in tops:
            start = tops[ground][1] + 0.06
    return rng.uniform(min(max(start, height * 0.85), 0.97), 0.99)


def _try_place(rng: Random, concept: str, box: Box, placed: list[SceneItem], tolerance: float) -> bool:
    """Add the item to `placed` unless it hides, or is hidden by, one already there."""
    if any(overlap(box, other.box) > tolerance for other in placed):
        return False
    placed.append(SceneItem(concept, box, rng.random() < 0.5, rng.getrandbits(32)))
    return True
