"""Regions of each view, and what may stand where on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sin
from random import Random

from gazetteer.data.scenes.items import SceneItem

Place = Callable[[Random, float, float], tuple[float, float] | None]
"""(rng, width, height) to the left and top of a thing, None where it is too large to fit."""

_ANY: tuple[int, ...] = (46, 28, 16, 10)
_CLOSE = {
    "sun": "sky", "moon": "sky", "cloud": "sky", "balloon": "sky", "boat": "sea", "car": "road sand grass",
    "dog": "grass sand road", "house": "grass sand", "tree": "grass sand", "flower": "grass sand",
}  # fmt: skip


@dataclass(frozen=True)
class Resident:
    """A thing that may be there: how often, where, and its smallest and largest height if not the usual ones."""

    weight: float
    place: Place
    heights: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """Regions back to front, the residents by concept, and how often one to four things are there."""

    ground: str
    horizon: float
    regions: tuple[SceneItem, ...]
    residents: dict[str, Resident]
    crowds: tuple[int, ...] = _ANY


def region(rng: Random, concept: str, variant: str, box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> SceneItem:
    """A region with a look of its own."""
    return SceneItem(concept, box, rng.random() < 0.5, rng.getrandbits(32), variant)


def within(x0: float, y0: float, x1: float, y1: float, spill: float = 0.04) -> Place:
    """Anywhere inside a rectangle; up to `spill` of the picture may lie beyond its sides."""

    def place(rng: Random, width: float, height: float) -> tuple[float, float] | None:
        left, right = x0 - spill, x1 + spill - width
        top, bottom = y0 - spill / 2, y1 + spill / 2 - height
        if right < left or bottom < top:
            return None
        return rng.uniform(left, right), rng.uniform(top, bottom)

    return place


def standing(low: Callable[[float], float], high: float = 0.99, x0: float = 0.0, x1: float = 1.0) -> Place:
    """With its foot between the line `low`(x) and `high`, and all of it inside the picture."""

    def place(rng: Random, width: float, height: float) -> tuple[float, float] | None:
        left, right = x0 - 0.04, x1 + 0.04 - width
        if right < left:
            return None
        corner = rng.uniform(left, right)
        least = max(low(corner + width / 2), height - 0.03)
        return None if least > high else (corner, rng.uniform(least, high) - height)

    return place


def off(place: Place, *roads: tuple[float, float, float, float]) -> Place:
    """As `place`, but never with the middle of the foot on one of `roads` (boxes)."""

    def checked(rng: Random, width: float, height: float) -> tuple[float, float] | None:
        corner = place(rng, width, height)
        if corner is None:
            return None
        x, y = corner[0] + width / 2, corner[1] + height - 0.02
        return None if any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in roads) else corner

    return checked


def _residents(weights: dict[str, float], place: Place) -> dict[str, Resident]:
    return {name: Resident(weight, place) for name, weight in weights.items()}


def _flyers(place: Place, light: float, other: float) -> dict[str, Resident]:
    """What is seen in a sky; sun and moon have weight `light`, clouds and balloons `other`."""
    return _residents({"sun": light, "moon": light, "cloud": other, "balloon": other}, place)


def landscape(rng: Random) -> Plan:
    """Ground below a horizon, sky above it, sometimes mountains between them."""
    horizon = rng.uniform(0.16, 0.8)
    ground = rng.choices(("meadow", "road", "beach", "sea", "dunes"), (26, 26, 20, 16, 12))[0]
    regions = [region(rng, "sky", "high")]
    if horizon > 0.25 and rng.random() < 0.4:
        regions.append(_mountain(rng, horizon))
    grounds, residents = _GROUNDS[ground](rng, horizon)
    return Plan(ground, horizon, (*regions, *grounds), _flyers(within(0, 0, 1, horizon), 2.4, 2.5) | residents)


def _mountain(rng: Random, foot: float) -> SceneItem:
    """One or several peaks that may rise over more than half of the picture."""
    variant = rng.choice(("one tall", "several tall"))
    height = min(rng.uniform(0.24, 0.62), foot * 0.94)
    width = height * rng.uniform(1.5, 2.1) if variant == "one tall" else rng.uniform(0.95, 1.3)
    left = rng.uniform(-0.2, 1.2 - width)
    return region(rng, "mountain", variant, (left, foot - height, left + width, foot + 0.05))


_Grounds = tuple[list[SceneItem], dict[str, Resident]]


def _meadow(rng: Random, horizon: float) -> _Grounds:
    foot = standing(lambda _: horizon + 0.03)
    weights = {"tree": 4.0, "house": 4.0, "dog": 4.0, "flower": 4.0, "car": 1.0}
    return [region(rng, "grass", "field", (0, horizon, 1, 1))], _residents(weights, foot)


def _dunes(rng: Random, horizon: float) -> _Grounds:
    foot = standing(lambda _: horizon + 0.03)
    weights = {"tree": 3.0, "house": 3.0, "dog": 3.0, "flower": 3.0, "car": 2.0}
    return [region(rng, "sand", "field", (0, horizon, 1, 1))], _residents(weights, foot)


def _open_sea(rng: Random, horizon: float) -> _Grounds:
    sea = region(rng, "sea", "field", (0, horizon, 1, 1))
    return [sea], {"boat": Resident(11, standing(lambda _: horizon + 0.05, 0.98))}


def _beach(rng: Random, horizon: float) -> _Grounds:
    shore = horizon + rng.uniform(0.35, 0.7) * (1 - horizon)
    regions = [
        region(rng, "sea", "field", (0, horizon, 1, 1)),
        region(rng, "sand", "field", (0, shore, 1, 1)),
    ]
    weights = {"dog": 3.0, "tree": 2.0, "house": 2.0, "flower": 1.5, "car": 1.5}
    boats = Resident(6, standing(lambda _: horizon + 0.05, shore))
    return regions, _residents(weights, standing(lambda _: shore + 0.05)) | {"boat": boats}


def _roadside(rng: Random, horizon: float) -> _Grounds:
    below = 1 - horizon
    grass = region(rng, "grass", "field", (0, horizon, 1, 1))
    weights, foot = {"tree": 3.0, "house": 3.0, "dog": 2.0, "flower": 2.0}, standing(lambda _: horizon + 0.03)
    if rng.random() < 0.6:
        thick = max(0.15, rng.uniform(0.3, 0.5) * below)
        top = horizon + rng.uniform(0.1, 0.9) * max(0.0, below - thick)
        road = region(rng, "road", "band", (0, top, 1, top + thick))
        middle, end = top + 0.45 * thick, min(0.98, top + thick - 0.02)
        others = _residents(weights, off(foot, (0, top, 1, top + thick)))
        return [grass, road], others | {"car": Resident(9, standing(lambda _: middle, end))}
    left = rng.uniform(-0.05, 0.45)
    road = region(rng, "road", "far", (left, horizon, left + rng.uniform(0.6, 0.85), 1))
    others = _residents(weights, foot)
    return [grass, road], others | {"car": Resident(9, standing(lambda _: horizon + 0.45 * below, 0.98, 0.1, 0.9))}


_GROUNDS: dict[str, Callable[[Random, float], _Grounds]] = {
    "meadow": _meadow, "road": _roadside, "beach": _beach, "sea": _open_sea, "dunes": _dunes,
}  # fmt: skip


def above(rng: Random) -> Plan:
    """The ground from high up, filling the picture; figures stand on it as on a picture map."""
    ground = rng.choices(("meadow", "crossing", "beach", "water"), (28, 30, 22, 20))[0]
    over = {"cloud": Resident(0.7, within(0, 0, 1, 1)), "balloon": Resident(0.7, within(0, 0, 1, 1))}
    if ground == "water":
        return Plan(ground, 0, (region(rng, "sea", "flat"),), {"boat": Resident(8, within(0, 0, 1, 1))} | over)
    if ground == "meadow":
        weights = {"tree": 3.0, "house": 3.0, "dog": 4.0, "flower": 4.0, "car": 1.0}
        concept = "grass" if rng.random() < 0.75 else "sand"
        return Plan(ground, 0, (region(rng, concept, "flat"),), _residents(weights, within(0, 0, 1, 1)) | over)
    regions, residents = (_crossing if ground == "crossing" else _coast)(rng)
    return Plan(ground, 0, tuple(regions), residents | over)


def _crossing(rng: Random) -> _Grounds:
    """A road from side to side, often crossed by another, anywhere on the grass."""
    thick, wide = rng.uniform(0.24, 0.36), rng.uniform(0.2, 0.3)
    top, left = rng.uniform(0.02, 0.98 - thick), rng.uniform(0.05, 0.95 - wide)
    kind = rng.choices(("cross", "strip"), (55, 45))[0]
    regions = [region(rng, "grass", "flat"), region(rng, "road", kind, (left, top, left + wide, top + thick))]
    car = Resident(9, standing(lambda _: top + thick * 0.55, top + thick - 0.02), (0.13, thick * 1.05))
    roads = [(0.0, top, 1.0, top + thick)] + [(left, 0.0, left + wide, 1.0)] * (kind == "cross")
    others = off(within(0, 0, 1, 1), *roads)
    return regions, _residents({"tree": 2.0, "house": 2.0, "dog": 2.5, "flower": 2.0}, others) | {"car": car}


def _coast(rng: Random) -> _Grounds:
    """Sand on one side of the picture, sea on the other."""
    side = rng.choice(("left", "right", "top", "bottom"))
    line = rng.uniform(0.38, 0.62)
    boxes = {"left": (0, 0, line, 1), "right": (line, 0, 1, 1), "top": (0, 0, 1, line), "bottom": (0, line, 1, 1)}
    other = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
    sand, sea = boxes[side], boxes[other]
    regions = [region(rng, "sea", "flat"), region(rng, "sand", f"coast {side}", sand)]
    weights = {"dog": 4.0, "tree": 3.0, "house": 2.5, "flower": 3.0, "car": 2.0}
    return regions, _residents(weights, within(*sand)) | {"boat": Resident(7, within(*sea, spill=0.0))}


def sky(rng: Random) -> Plan:
    """Nothing but sky, and what flies anywhere in it."""
    return Plan("sky", 1, (region(rng, "sky", "full"),), _flyers(within(0, 0, 1, 1), 7, 2.6))


def close_up(rng: Random) -> Plan:
    """One thing, large, on plain ground."""
    name = rng.choice(list(_CLOSE))
    ground = rng.choice(_CLOSE[name].split())
    tall = {"car": (0.36, 0.5), "cloud": (0.3, 0.45)}.get(name, (0.5, 0.85))
    thing = Resident(1, within(0, 0, 1, 1), tall)
    return Plan(ground, 0, (region(rng, ground, "plain"),), {name: thing}, (9, 1, 0, 0))


def hillside(rng: Random) -> Plan:
    """A slope from one side to the other, with things at every height of it and some sky beyond."""
    high, low = rng.uniform(-0.05, 0.3), rng.uniform(0.45, 0.85)
    ground = "grass" if rng.random() < 0.72 else "sand"
    slope = region(rng, ground, "slope", (0, high, 1, low))
    regions = [region(rng, "sky", "high")]
    if rng.random() < 0.25:
        regions.append(_mountain(rng, (high + low) / 2 + 0.15))
    weights = {"tree": 3.0, "house": 3.0, "dog": 3.5, "flower": 3.5, "car": 2.0}
    left, right = (0.0, 0.55) if slope.flip else (0.45, 1.0)
    flyers = _flyers(within(left, 0, right, low - 0.15), 1.0, 1.2)
    things = _residents(weights, standing(lambda x: slope_line(slope, x) + 0.05))
    return Plan("slope", (high + low) / 2, (*regions, slope), things | flyers)


def slope_line(item: SceneItem, x: float) -> float:
    """Height of a slope's upper edge at `x`: high at the left, or at the right if the item is flipped."""
    across = 1 - x if item.flip else x
    bulge = 0.05 * sin(pi * min(1.0, max(0.0, across)))
    return item.box[1] + (item.box[3] - item.box[1]) * across - bulge
