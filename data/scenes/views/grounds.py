"""Painting the regions of the views: grounds without a horizon, slopes, coasts, roads with markings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sin
from random import Random

from gazetteer.data.scenes.canvas import Canvas, Colour, Point, jitter, shade
from gazetteer.data.scenes.items import SceneItem
from gazetteer.data.scenes.views.plans import slope_line

_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((50, 128, 214), (186, 220, 244)),
    ((84, 156, 226), (226, 238, 246)),
    ((40, 106, 190), (150, 206, 232)),
    ((100, 172, 216), (244, 230, 212)),
)
_GRASS: tuple[Colour, ...] = ((128, 186, 76), (104, 174, 84), (150, 184, 74))
_SAND: tuple[Colour, ...] = ((242, 218, 162), (236, 206, 146), (228, 192, 136))
_SEA: tuple[Colour, ...] = ((34, 104, 176), (28, 126, 170), (50, 94, 164))
_WHOLE: tuple[Point, ...] = ((0, 0), (1, 0), (1, 1.01), (0, 1.01))
_PAINT: Colour = (250, 246, 236)
_YELLOW: Colour = (250, 206, 60)


def _sky(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    high, low = rng.choice(_SKIES)
    if item.variant == "full" and item.flip:
        low = shade(high, 1.25)
    canvas.gradient(_WHOLE, jitter(rng, high, 12), jitter(rng, low, 8))


def _outline(item: SceneItem, rng: Random) -> list[Point]:
    """The polygon of a ground, a slope or a coast; plain rectangles where the ground fills the picture."""
    x0, y0, x1, y1 = item.box
    if item.variant == "slope":
        return [*((x / 16, slope_line(item, x / 16)) for x in range(17)), (1, 1.01), (0, 1.01)]
    phase, rate, swing = rng.uniform(0, 6.3), rng.uniform(3.0, 7.0), rng.uniform(0.008, 0.025)
    waves = [(step / 14, swing * sin(phase + rate * step / 14)) for step in range(15)]
    if item.variant == "coast left":
        return [*((x1 + wave, y * 1.02 - 0.01) for y, wave in waves), (0, 1.01), (0, 0)]
    if item.variant == "coast right":
        return [*((x0 + wave, y * 1.02 - 0.01) for y, wave in waves), (1, 1.01), (1, 0)]
    if item.variant == "coast top":
        return [*((x, y1 + wave) for x, wave in waves), (1, 0), (0, 0)]
    if item.variant == "coast bottom" or item.variant == "field":
        level = 0.0 if item.concept == "sea" else 1.0
        return [*((x, y0 + level * wave) for x, wave in waves), (1, 1.01), (0, 1.01)]
    return list(_WHOLE)


def _top(item: SceneItem) -> float:
    return min(item.box[1], 1.0) if item.variant in ("field", "slope", "coast bottom") else 0.0


def _spots(item: SceneItem, rng: Random, count: int) -> Sequence[tuple[float, float]]:
    """Random places of small marks on a ground, all inside it."""
    x0, y0, x1, y1 = item.box if item.variant != "slope" else (0.0, 0.0, 1.0, 1.0)
    places = [(rng.uniform(x0 + 0.02, x1 - 0.02), rng.uniform(y0 + 0.04, y1 - 0.01)) for _ in range(count)]
    if item.variant != "slope":
        return places
    return [(x, line + 0.05 + (0.95 - line) * y) for x, y in places if (line := slope_line(item, x)) < 0.9]


def _grass(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    far = jitter(rng, rng.choice(_GRASS), 12)
    seen_flat = item.variant in ("flat", "plain")
    canvas.gradient(_outline(item, rng), far, shade(far, 0.93 if seen_flat else rng.uniform(0.64, 0.8)))
    tints = ((66, 122, 44, 110), (196, 226, 124, 90))
    for x, y in _spots(item, rng, 10 if item.variant == "plain" else 24):
        size = 0.022 if seen_flat else 0.012 + 0.018 * y
        blades = [(x - size / 2, y - size), (x, y), (x + size / 2, y - size)]
        canvas.line(blades, rng.choice(tints), 0.006, own=False)


def _sand(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    far = jitter(rng, rng.choice(_SAND), 8)
    shape = _outline(item, rng)
    canvas.gradient(shape, far, shade(far, 0.95 if item.variant in ("flat", "plain") else rng.uniform(0.82, 0.9)))
    if item.variant.startswith("coast"):
        canvas.line(shape[:15], (255, 255, 255, 190), 0.016, own=False)
    for x, y in _spots(item, rng, 9 if item.variant == "plain" else 18):
        size = rng.uniform(0.012, 0.03)
        canvas.line([(x - size, y), (x, y - 0.008), (x + size, y)], (156, 116, 66, 80), 0.006, own=False)


def _sea(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    far = jitter(rng, rng.choice(_SEA), 10)
    canvas.gradient(_outline(item, rng), far, shade(far, rng.uniform(1.1, 1.35)))
    for x, y in _spots(item, rng, 12 if item.variant == "plain" else 26):
        size = 0.035 if item.variant != "field" else 0.018 + 0.04 * (y - _top(item))
        wave = [(x - size, y), (x - size / 2, y - 0.01), (x, y), (x + size / 2, y - 0.01), (x + size, y)]
        canvas.line(wave, (236, 247, 255, 130), 0.007, own=False)


def _road(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    """Dark asphalt with pale edge lines and yellow dashes along the middle."""
    grey = rng.randint(72, 92)
    asphalt = (grey, grey, grey + 8)
    x0, y0, x1, y1 = item.box
    if item.variant == "plain":
        canvas.gradient(_WHOLE, shade(asphalt, 1.06), shade(asphalt, 0.96))
        _dashes(canvas, (0.12, 0.04), (0.12, 1.0), 0.014, item)
    elif item.variant == "far":
        _far_road(canvas, item, asphalt)
    elif item.variant == "cross":
        _strip(canvas, (0, y0, 1, y1), asphalt)
        _strip(canvas, (x0, 0, x1, 1.01), asphalt)
        canvas.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], asphalt)
        _dashes(canvas, (0, (y0 + y1) / 2), (x0 - 0.09, (y0 + y1) / 2), 0.012, item)
        _dashes(canvas, (x1 + 0.09, (y0 + y1) / 2), (1, (y0 + y1) / 2), 0.012, item)
        _dashes(canvas, ((x0 + x1) / 2, 0), ((x0 + x1) / 2, y0 - 0.02), 0.012, item)
        _dashes(canvas, ((x0 + x1) / 2, y1 + 0.02), ((x0 + x1) / 2, 1), 0.012, item)
        _zebra(canvas, x0 - 0.075 if item.flip else x1 + 0.015, y0, y1)
    else:
        _strip(canvas, (0, y0, 1, y1), asphalt)
        _dashes(canvas, (0, (y0 + y1) / 2), (1, (y0 + y1) / 2), 0.012, item)


def _strip(canvas: Canvas, box: tuple[float, float, float, float], asphalt: Colour) -> None:
    """A straight piece of road with an edge line along each of its long sides."""
    x0, y0, x1, y1 = box
    canvas.gradient([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], shade(asphalt, 1.04), shade(asphalt, 0.97))
    if x1 - x0 > y1 - y0:
        for y in (y0 + 0.012, y1 - 0.012):
            canvas.line([(x0, y), (x1, y)], _PAINT, 0.009, own=False)
    else:
        for x in (x0 + 0.012, x1 - 0.012):
            canvas.line([(x, y0), (x, y1)], _PAINT, 0.009, own=False)


def _dashes(canvas: Canvas, start: Point, end: Point, half: float, item: SceneItem) -> None:
    """Yellow dashes along a horizontal or vertical line."""
    (xa, ya), (xb, yb) = start, end
    length, shift = abs(xb - xa) + abs(yb - ya), (item.look % 13) / 100
    across = abs(xb - xa) > abs(yb - ya)
    place = -shift
    while place < length:
        a, b = max(0.0, place), min(length, place + 0.09)
        if b - a > 0.02:
            box = (xa + a, ya - half, xa + b, ya + half) if across else (xa - half, ya + a, xa + half, ya + b)
            x0, y0, x1, y1 = box
            canvas.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], _YELLOW, own=False)
        place += 0.15


def _zebra(canvas: Canvas, left: float, top: float, bottom: float) -> None:
    """White bars across a horizontal road."""
    y = top + 0.03
    while y < bottom - 0.035:
        canvas.polygon([(left, y), (left + 0.06, y), (left + 0.06, y + 0.022), (left, y + 0.022)], _PAINT, own=False)
        y += 0.044


def _far_road(canvas: Canvas, item: SceneItem, asphalt: Colour) -> None:
    """A road that runs from the viewer to a point on the horizon."""
    x0, y0, x1, _ = item.box
    tip = min(0.9, max(0.1, x1 - 0.12 if item.flip else x0 + 0.12))
    canvas.gradient([(tip - 0.03, y0), (tip + 0.03, y0), (x1, 1.01), (x0, 1.01)], shade(asphalt, 1.12), asphalt)
    for inner, outer, edge in ((tip - 0.024, x0 + 0.02, 1), (tip + 0.024, x1 - 0.02, -1)):
        wide = 0.03 * edge
        canvas.polygon(
            [(inner, y0), (inner + 0.004 * edge, y0), (outer + wide, 1.01), (outer, 1.01)], _PAINT, own=False
        )
    foot = (x0 + x1) / 2
    for step in range(5):
        a, b = (step / 5 + 0.06) ** 1.6, (step / 5 + 0.16) ** 1.6
        xa, xb, ya, yb = tip + (foot - tip) * a, tip + (foot - tip) * b, y0 + (1 - y0) * a, y0 + (1 - y0) * b
        wa, wb = 0.004 + 0.022 * a, 0.004 + 0.022 * b
        canvas.polygon([(xa - wa, ya), (xa + wa, ya), (xb + wb, yb), (xb - wb, yb)], _YELLOW, own=False)


def _mountain(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    """One to three rocky peaks with a lit side, a shaded side and snow."""
    x0, y0, x1, y1 = item.box
    rock = jitter(rng, rng.choice(((116, 108, 126), (128, 110, 102), (100, 114, 132))), 10)
    peaks = 1 if item.variant.startswith("one") else rng.randint(2, 3)
    for peak in range(peaks):
        width = (x1 - x0) * (1.0 if peaks == 1 else rng.uniform(0.55, 0.75))
        middle = x0 + (x1 - x0) * (0.5 if peaks == 1 else (peak + 0.5) / peaks)
        top = y1 - (y1 - y0) * (1.0 if peak == 0 else rng.uniform(0.6, 0.95))
        _peak(canvas, rng, (middle - width / 2, middle + width / 2), top, y1, shade(rock, rng.uniform(0.92, 1.08)))


def _peak(canvas: Canvas, rng: Random, sides: tuple[float, float], top: float, foot: float, rock: Colour) -> None:
    left, right = sides
    summit = (left + right) / 2 + (right - left) * rng.uniform(-0.1, 0.1)
    canvas.gradient([(left, foot), (summit, top), (right, foot)], shade(rock, 1.15), shade(rock, 0.9))
    tall = foot - top
    ridge = [(summit, top), (summit + 0.02, top + 0.3 * tall), (summit - 0.01, top + 0.6 * tall), (summit + 0.06, foot)]
    canvas.polygon([*ridge, (right, foot)], (24, 20, 52, 96), own=False)
    fraction = rng.uniform(0.24, 0.36)
    a, b, low = summit + (left - summit) * fraction, summit + (right - summit) * fraction, top + tall * fraction
    zigzag = [(a, low), (a + (b - a) * 0.22, low - 0.02), (a + (b - a) * 0.42, low + 0.03)]
    zigzag += [(a + (b - a) * 0.64, low - 0.02), (a + (b - a) * 0.82, low + 0.01), (b, low), (summit, top)]
    canvas.polygon(zigzag, (246, 249, 253), own=False)
    canvas.polygon([(summit, top), (b, low), (a + (b - a) * 0.64, low - 0.02)], (150, 164, 200, 110), own=False)


GROUNDS: dict[str, Callable[[Canvas, SceneItem, Random], None]] = {
    "sky": _sky, "grass": _grass, "sand": _sand, "sea": _sea, "road": _road, "mountain": _mountain,
}  # fmt: skip
"""Painter of every region in the scenes of `gazetteer.data.scenes.views`."""
