"""Painting the regions of a scene: sky, grounds, road and mountains; things are in `things.py`."""

from __future__ import annotations

from collections.abc import Callable
from math import sin
from random import Random

from gazetteer.data.scenes.canvas import Canvas, Colour, Point, jitter, shade
from gazetteer.data.scenes.items import SceneItem, SceneLayout
from gazetteer.data.scenes.things import THINGS
from gazetteer.data.scenes.views.figures import FIGURES
from gazetteer.data.scenes.views.grounds import GROUNDS

_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((58, 134, 214), (190, 222, 244)),
    ((92, 160, 226), (228, 238, 246)),
    ((44, 110, 190), (150, 206, 232)),
    ((110, 176, 214), (246, 232, 214)),
    ((136, 158, 184), (214, 220, 226)),
)


def paint(layout: SceneLayout, side: int) -> Canvas:
    """Paint every item of the layout; item i owns the pixels with value i + 1."""
    canvas = Canvas(side)
    painters = {**FIGURES, **GROUNDS} if layout.view else {**THINGS, **REGIONS}
    for index, item in enumerate(layout.items):
        canvas.owner = index + 1
        painters[item.concept](canvas, item, Random(item.look))
    return canvas


def _wavy(rng: Random, top: float, swing: float) -> list[Point]:
    """Polygon from a gently waving top line down to the bottom of the picture."""
    phase, rate = rng.uniform(0, 6.3), rng.uniform(2.0, 6.0)
    line = [(x / 12, top + swing * sin(phase + rate * x / 12)) for x in range(13)]
    return [*line, (1.0, 1.01), (0.0, 1.01)]


def _sky(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    high, low = rng.choice(_SKIES)
    canvas.gradient([(0, 0), (1, 0), (1, 1), (0, 1)], jitter(rng, high, 14), jitter(rng, low, 10))


def _grass(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    far = jitter(rng, rng.choice(((140, 190, 84), (112, 178, 92), (158, 186, 80))), 14)
    near = shade(far, rng.uniform(0.62, 0.78))
    canvas.gradient(_wavy(rng, item.box[1], rng.uniform(0.0, 0.025)), far, near)
    span = 1.0 - item.box[1]
    for _ in range(26):
        x, depth = rng.random(), rng.random() ** 0.7
        y = item.box[1] + 0.05 + span * depth
        tint = rng.choice(((60, 110, 40, 90), (190, 220, 120, 80)))
        size = 0.010 + 0.022 * depth
        canvas.line([(x - size / 2, y - size), (x, y), (x + size / 2, y - size)], tint, 0.006, own=False)


def _sand(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    far = jitter(rng, rng.choice(((242, 218, 164), (236, 204, 146), (226, 190, 138))), 10)
    swing = rng.uniform(0.01, 0.03)
    canvas.gradient(_wavy(rng, item.box[1], swing), far, shade(far, rng.uniform(0.8, 0.9)))
    for _ in range(16):
        x, y = rng.random(), rng.uniform(item.box[1] + 0.04, 1.0)
        size = rng.uniform(0.03, 0.08)
        canvas.line([(x - size, y), (x, y - 0.008), (x + size, y)], (150, 110, 60, 60), 0.006, own=False)


def _sea(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    far = jitter(rng, rng.choice(((36, 104, 170), (30, 126, 164), (52, 92, 156))), 12)
    near = shade(far, rng.uniform(1.15, 1.4))
    top = item.box[1]
    canvas.gradient([(0, top), (1, top), (1, 1.01), (0, 1.01)], far, near)
    for _ in range(26):
        depth = rng.random()
        x, y = rng.random(), top + 0.015 + (1 - top) * depth
        size = 0.02 + 0.05 * depth
        points = [(x - size, y), (x - size / 2, y - 0.008), (x, y), (x + size / 2, y - 0.008), (x + size, y)]
        canvas.line(points, (235, 246, 255, 110), 0.007, own=False)


def _road(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    x0, y0, x1, y1 = item.box
    grey = rng.randint(78, 112)
    asphalt = (grey, grey, grey + 8)
    if item.variant == "across":
        canvas.gradient([(0, y0), (1, y0), (1, y1), (0, y1)], shade(asphalt, 1.1), shade(asphalt, 0.9))
        middle, thick = (y0 + y1) / 2, (y1 - y0) * 0.06
        for x in range(-1, 8):
            left = x * 0.16 + (item.look % 16) / 100
            right = left + 0.09
            canvas.polygon(
                [
                    (left, middle - thick),
                    (right, middle - thick),
                    (right, middle + thick),
                    (left, middle + thick),
                ],
                (246, 238, 205),
                own=False,
            )
        return
    tip = x1 - 0.1 if item.flip else x0 + 0.1
    tip = min(0.9, max(0.1, tip))
    corners = [(tip - 0.035, y0), (tip + 0.035, y0), (x1, 1.01), (x0, 1.01)]
    canvas.gradient(corners, shade(asphalt, 1.15), shade(asphalt, 0.9))
    foot = (x0 + x1) / 2
    for step in range(5):
        a, b = (step / 5 + 0.06) ** 1.6, (step / 5 + 0.16) ** 1.6
        xa, xb = tip + (foot - tip) * a, tip + (foot - tip) * b
        ya, yb = y0 + (1 - y0) * a, y0 + (1 - y0) * b
        wa, wb = 0.004 + 0.02 * a, 0.004 + 0.02 * b
        canvas.polygon([(xa - wa, ya), (xa + wa, ya), (xb + wb, yb), (xb - wb, yb)], (246, 238, 205), own=False)


def _mountain(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    x0, y0, x1, y1 = item.box
    rock = jitter(rng, rng.choice(((112, 108, 128), (126, 110, 104), (98, 116, 132))), 12)
    peaks = 1 if item.variant == "one" else rng.randint(2, 4)
    # The first and tallest peak is painted first so that lower ones stand before it.
    for peak in range(peaks):
        width = (x1 - x0) * (1.0 if peaks == 1 else rng.uniform(0.5, 0.75))
        middle = x0 + (x1 - x0) * (0.5 if peaks == 1 else (peak + 0.5) / peaks)
        height = (y1 - y0) * (1.0 if peak == 0 else rng.uniform(0.55, 0.9))
        top = y1 - height
        xs = (middle - width / 2, middle, middle + width / 2)
        _peak(canvas, rng, xs, top, y1, shade(rock, rng.uniform(0.9, 1.1)))


def _peak(canvas: Canvas, rng: Random, xs: tuple[float, float, float], top: float, foot: float, rock: Colour) -> None:
    """A triangular peak with a shaded side and, often, a snow cap."""
    left, middle, right = xs
    summit = middle + (right - left) * rng.uniform(-0.12, 0.12)
    canvas.gradient([(left, foot), (summit, top), (right, foot)], shade(rock, 1.12), shade(rock, 0.86))
    crease = middle + (right - left) * 0.08
    canvas.polygon([(summit, top), (right, foot), (crease, foot)], (20, 20, 50, 60), own=False)
    if rng.random() < 0.75:
        fraction = rng.uniform(0.2, 0.36)
        low = top + (foot - top) * fraction
        a, b = summit + (left - summit) * fraction, summit + (right - summit) * fraction
        zigzag = [(a, low), (a + (b - a) * 0.25, low - 0.015), (a + (b - a) * 0.45, low + 0.02)]
        zigzag += [(a + (b - a) * 0.7, low - 0.012), (b, low), (summit, top)]
        canvas.polygon(zigzag, (244, 247, 252), own=False)


REGIONS: dict[str, Callable[[Canvas, SceneItem, Random], None]] = {
    "sky": _sky,
    "grass": _grass,
    "sand": _sand,
    "sea": _sea,
    "road": _road,
    "mountain": _mountain,
}
