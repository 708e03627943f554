"""Painting the things that the plain landscape shows too vaguely: with outlines, and parts that tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin
from random import Random

from gazetteer.data.scenes.canvas import Canvas, Colour, Frame, jitter, shade
from gazetteer.data.scenes.items import SceneItem
from gazetteer.data.scenes.things import THINGS
from gazetteer.data.scenes.views.pen import Pen

_BODIES: tuple[Colour, ...] = (
    (214, 48, 44), (38, 96, 196), (246, 190, 40), (240, 240, 236), (40, 150, 100), (146, 66, 160), (240, 118, 44),
)  # fmt: skip
_FURS: tuple[Colour, ...] = ((176, 112, 58), (112, 74, 50), (232, 196, 140), (84, 80, 86), (244, 238, 228))
_PETALS: tuple[Colour, ...] = (
    (232, 50, 84), (250, 204, 56), (246, 246, 250), (150, 80, 204), (250, 126, 170), (244, 108, 36),
)  # fmt: skip
_INK: Colour = (38, 32, 40)


def _dog(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    """A dog from the side: four legs, a raised tail, a muzzle with a black nose, an ear, a collar."""
    frame = Frame(canvas, item)
    frame.ground_shadow(0.12)
    fur = jitter(rng, rng.choice(_FURS), 8)
    dark, pale = shade(fur, 0.7), shade(fur, 1.22)
    pen = Pen(frame, _INK)
    pen.line([(0.13, 0.47), (0.06, 0.34), (0.07, 0.17)], fur, 0.085)
    for u in (0.25, 0.57):
        pen.polygon([(u, 0.6), (u + 0.11, 0.6), (u + 0.1, 0.97), (u - 0.01, 0.97)], dark)
    for u in (0.12, 0.66):
        pen.polygon([(u - 0.01, 0.55), (u + 0.14, 0.55), (u + 0.11, 0.92), (u + 0.15, 0.99), (u + 0.01, 0.99)], fur)
    pen.ellipse(0.08, 0.36, 0.5, 0.76, fur)
    pen.polygon([(0.24, 0.37), (0.6, 0.38), (0.62, 0.16), (0.84, 0.36), (0.8, 0.66), (0.6, 0.76), (0.26, 0.75)], fur)
    pen.ellipse(0.57, 0.03, 0.87, 0.45, fur)
    pen.ellipse(0.74, 0.2, 1.0, 0.43, pale)
    pen.finish()
    if rng.random() < 0.45:
        patch = rng.choice(((244, 240, 232), (70, 50, 44), (120, 80, 50)))
        frame.ellipse(0.22, 0.38, 0.46, 0.6, patch, own=False)
    frame.ellipse(0.2, 0.66, 0.62, 0.76, (10, 0, 20, 50), own=False)
    frame.polygon([(0.59, 0.42), (0.62, 0.36), (0.84, 0.46), (0.82, 0.54)], (212, 44, 48), own=False)
    ear = Pen(frame, _INK)
    if rng.random() < 0.6:
        ear.ellipse(0.55, 0.08, 0.69, 0.42, dark, turn=0.15)
    else:
        ear.polygon([(0.57, 0.16), (0.6, -0.04), (0.72, 0.1)], dark)
    ear.finish()
    frame.ellipse(0.745, 0.135, 0.82, 0.225, (250, 250, 250), own=False)
    frame.ellipse(0.765, 0.145, 0.82, 0.22, (16, 12, 16), own=False)
    frame.ellipse(0.915, 0.2, 1.01, 0.3, (20, 16, 20), own=False)
    frame.line([(0.97, 0.35), (0.9, 0.385), (0.84, 0.36)], _INK, 0.02, own=False)


def _car(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    """A car from the side: a rounded body, two windows, two large wheels, lamps and bumpers."""
    frame = Frame(canvas, item)
    frame.ground_shadow(0.2)
    body = jitter(rng, rng.choice(_BODIES), 10)
    pen = Pen(frame, _INK)
    back = rng.choice((0.1, 0.2))
    cabin = [(back - 0.02, 0.46), (back + 0.09, 0.06), (0.16 + back, 0.02), (0.64, 0.02), (0.7, 0.06), (0.83, 0.46)]
    pen.polygon(cabin, body)
    hood = [(0.0, 0.5), (0.03, 0.42), (0.84, 0.42), (0.96, 0.5), (1.0, 0.6), (1.0, 0.8), (0.0, 0.8)]
    pen.polygon(hood, body)
    for u in (0.11, 0.66):
        pen.ellipse(u, 0.54, u + 0.23, 1.0, (40, 40, 46))
    pen.finish()
    glass = (186, 222, 240)
    frame.polygon([(back + 0.05, 0.42), (back + 0.13, 0.12), (0.43, 0.12), (0.43, 0.42)], glass, own=False)
    frame.polygon([(0.48, 0.42), (0.48, 0.12), (0.63, 0.12), (0.76, 0.42)], glass, own=False)
    frame.polygon([(0.52, 0.42), (0.57, 0.12), (0.61, 0.12), (0.58, 0.42)], (255, 255, 255, 120), own=False)
    frame.polygon([(0.01, 0.68), (0.99, 0.68), (1.0, 0.8), (0.0, 0.8)], (0, 0, 20, 70), own=False)
    frame.line([(0.455, 0.44), (0.455, 0.7)], shade(body, 0.55), 0.025, own=False)
    frame.rectangle(0.49, 0.5, 0.56, 0.535, shade(body, 0.5), own=False)
    frame.ellipse(0.9, 0.5, 0.99, 0.66, (255, 238, 150), own=False)
    frame.rectangle(0.0, 0.52, 0.05, 0.66, (190, 24, 30), own=False)
    for u in (0.11, 0.66):
        frame.ellipse(u, 0.54, u + 0.23, 1.0, (40, 40, 46))
        frame.ellipse(u + 0.055, 0.65, u + 0.175, 0.89, (206, 210, 216), own=False)
        frame.ellipse(u + 0.095, 0.73, u + 0.135, 0.81, (90, 92, 100), own=False)


def _flower(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    """A flower with petals round a disc, a stalk and two leaves."""
    frame = Frame(canvas, item)
    x0, y0, x1, y1 = item.box
    wide, tall = x1 - x0, y1 - y0
    petal = jitter(rng, rng.choice(_PETALS), 8)
    green = jitter(rng, (44, 132, 56), 8)
    pen = Pen(frame, _INK)
    pen.line([(0.5, 0.4), (0.5, 0.98)], green, 0.05)
    pen.polygon([(0.5, 0.93), (0.66, 0.7), (0.97, 0.64), (0.84, 0.84)], green)
    pen.polygon([(0.5, 0.98), (0.34, 0.78), (0.03, 0.72), (0.16, 0.92)], shade(green, 0.85))
    petals, start = rng.randint(5, 7), rng.random()
    # The blossom is round in the picture: rows of the frame are `aspect` times as tall as columns are wide.
    aspect, middle = tall / wide, 0.5 * wide / tall
    for index in range(petals):
        angle = 2 * pi * (index + start) / petals
        cu, cv, r = 0.5 + 0.3 * cos(angle), middle + 0.3 * sin(angle) / aspect, 0.2 if petals < 7 else 0.185
        pen.ellipse(cu - r, cv - r / aspect, cu + r, cv + r / aspect, petal)
    pen.finish()
    core = (252, 206, 50) if petal[2] > 100 or petal[1] < 100 else (122, 70, 34)
    disc = Pen(frame, shade(core, 0.55))
    disc.ellipse(0.34, middle - 0.16 / aspect, 0.66, middle + 0.16 / aspect, core)
    disc.finish()


def _balloon(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    """A hot-air balloon with vertical stripes, ropes and a basket."""
    frame = Frame(canvas, item)
    first, second = rng.sample(_BODIES, 2)
    envelope = [(0.5 + 0.5 * sin(a), 0.38 - 0.38 * cos(a)) for a in (2 * pi * step / 24 for step in range(-8, 9))]
    pen = Pen(frame, _INK)
    pen.polygon([*envelope, (0.62, 0.79), (0.38, 0.79)], first)
    pen.polygon([(0.35, 0.87), (0.65, 0.87), (0.61, 1.0), (0.39, 1.0)], (150, 96, 50))
    pen.finish()
    for half, colour in ((0.31, second), (0.13, first)):
        stripe = [(0.5 + half * sin(a), 0.38 - 0.38 * cos(a)) for a in (2 * pi * step / 24 for step in range(-8, 9))]
        frame.polygon([*stripe, (0.5 + half * 0.24, 0.79), (0.5 - half * 0.24, 0.79)], colour, own=False)
    for u in (0.4, 0.6):
        frame.line([(u, 0.79), (u, 0.87)], (70, 50, 40), 0.02)
    frame.ellipse(0.14, 0.08, 0.4, 0.34, (255, 255, 255, 70), own=False)


FIGURES: dict[str, Callable[[Canvas, SceneItem, Random], None]] = THINGS | {
    "car": _car, "dog": _dog, "flower": _flower, "balloon": _balloon,
}  # fmt: skip
"""Painter of every thing in the scenes of `gazetteer.data.scenes.views`."""
