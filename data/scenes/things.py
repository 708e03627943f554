"""Painting the countable things of a scene."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin
from random import Random

from gazetteer.data.scenes.canvas import Canvas, Colour, Frame, jitter, shade
from gazetteer.data.scenes.items import SceneItem

_BRIGHT: tuple[Colour, ...] = (
    (214, 54, 50),
    (46, 104, 190),
    (242, 180, 44),
    (240, 240, 236),
    (52, 150, 110),
    (150, 70, 160),
    (236, 120, 50),
)
_WALLS: tuple[Colour, ...] = (
    (244, 230, 204),
    (226, 168, 132),
    (200, 214, 224),
    (238, 208, 128),
    (250, 248, 240),
)
_ROOFS: tuple[Colour, ...] = ((176, 62, 50), (96, 72, 84), (70, 92, 128), (150, 92, 50))
_HULLS: tuple[Colour, ...] = (
    (150, 60, 44),
    (240, 240, 240),
    (44, 60, 110),
    (120, 80, 50),
    (210, 150, 50),
)
_SAILS: tuple[Colour, ...] = ((250, 248, 240), (240, 120, 90), (252, 226, 150), (220, 234, 246))
_FURS: tuple[Colour, ...] = (
    (170, 112, 62),
    (94, 66, 50),
    (228, 196, 150),
    (62, 58, 62),
    (240, 234, 226),
)
_PETALS: tuple[Colour, ...] = (
    (232, 60, 90),
    (250, 200, 60),
    (244, 246, 250),
    (150, 84, 200),
    (250, 130, 170),
    (240, 110, 40),
)


def _sun(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    x0, y0, x1, y1 = item.box
    cx, cy, radius = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2
    core = jitter(rng, (255, 208, 60), 14)
    for grow in (1.6, 1.35):
        r = radius * grow
        canvas.ellipse((cx - r, cy - r, cx + r, cy + r), (255, 236, 160, 50), own=False)
    if rng.random() < 0.6:
        rays, start = rng.randint(9, 13), rng.random()
        for ray in range(rays):
            angle = 2 * pi * (ray + start) / rays
            side = 0.8 * pi / rays
            points = [(cx + radius * cos(angle), cy + radius * sin(angle))]
            points += [
                (cx + 0.72 * radius * cos(angle + turn), cy + 0.72 * radius * sin(angle + turn))
                for turn in (side, -side)
            ]
            canvas.polygon(points, shade(core, 0.97))
        radius *= 0.74
    canvas.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), core)
    r = radius * 0.7
    canvas.ellipse((cx - r, cy - r, cx + r, cy + r), (255, 240, 170, 110), own=False)


def _moon(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    pale = jitter(rng, (240, 238, 220), 10)
    x0, y0, x1, y1 = item.box
    grow = (x1 - x0) * 0.16
    canvas.ellipse((x0 - grow, y0 - grow, x1 + grow, y1 + grow), (240, 240, 255, 40), own=False)
    if rng.random() < 0.5:
        frame.ellipse(0, 0, 1, 1, pale)
        for u, v, size in ((0.25, 0.3, 0.2), (0.6, 0.55, 0.26), (0.35, 0.68, 0.14), (0.66, 0.2, 0.13)):
            frame.ellipse(u, v, u + size, v + size, (196, 194, 186), own=False)
        return
    angles = [pi * (0.5 + step / 16) for step in range(17)]
    outer = [(0.62 + 0.5 * cos(a) * 1.24, 0.5 - 0.5 * sin(a)) for a in angles]
    bite = rng.uniform(0.1, 0.3)
    inner = [(0.62 + bite * cos(a), 0.5 - 0.5 * sin(a)) for a in reversed(angles)]
    frame.polygon(outer + inner, pale)


def _cloud(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    white = rng.randint(232, 252)
    puffs = [(0.0, 0.45, 0.36, 1.0), (0.62, 0.42, 1.0, 1.0), (0.16, 0.12, 0.56, 0.92), (0.42, 0.0, 0.82, 0.95)]
    under = shade((white, white, white + 3), 0.84)
    for u0, v0, u1, v1 in puffs:
        frame.ellipse(u0, v0, u1, v1, under)
    frame.rectangle(0.17, 0.65, 0.82, 0.995, under)
    for u0, v0, u1, v1 in puffs:
        frame.ellipse(u0 + 0.02, v0, u1 - 0.02, v1 - 0.16, (white, white, white), own=False)


def _tree(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    frame.ground_shadow(0.1)
    bark = jitter(rng, (112, 76, 48), 12)
    leaf = jitter(rng, rng.choice(((46, 112, 58), (70, 136, 56), (34, 96, 72), (196, 118, 40))), 12)
    if rng.random() < 0.4:
        frame.rectangle(0.42, 0.8, 0.58, 1.0, bark)
        for level in range(3):
            top, low, half = level * 0.24, 0.42 + level * 0.22, 0.28 + level * 0.11
            frame.polygon([(0.5, top), (0.5 + half, low), (0.5 - half, low)], shade(leaf, 1.1 - level * 0.08))
            frame.polygon([(0.5, top), (0.5 + half, low), (0.56, low)], (0, 20, 30, 50), own=False)
        return
    frame.polygon([(0.42, 0.5), (0.58, 0.5), (0.62, 1.0), (0.38, 1.0)], bark)
    frame.polygon([(0.52, 0.5), (0.58, 0.5), (0.62, 1.0), (0.54, 1.0)], (20, 10, 10, 70), own=False)
    blobs = [(0.0, 0.26, 0.5, 0.64), (0.5, 0.26, 1.0, 0.64), (0.14, 0.0, 0.86, 0.46), (0.2, 0.25, 0.8, 0.68)]
    for u0, v0, u1, v1 in blobs:
        frame.ellipse(u0, v0, u1, v1, shade(leaf, 0.86))
    for u0, v0, u1, v1 in blobs:
        frame.ellipse(u0 + 0.03, v0 + 0.01, u1 - 0.12, v1 - 0.1, shade(leaf, 1.12), own=False)


def _house(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    frame.ground_shadow(0.1)
    wall = jitter(rng, rng.choice(_WALLS), 8)
    roof = jitter(rng, rng.choice(_ROOFS), 12)
    if rng.random() < 0.6:
        frame.rectangle(0.7, 0.04, 0.82, 0.34, shade(roof, 0.7))
    frame.rectangle(0.08, 0.4, 0.92, 1.0, wall)
    frame.rectangle(0.66, 0.4, 0.92, 1.0, (30, 20, 50, 36), own=False)
    if rng.random() < 0.5:
        frame.polygon([(0.0, 0.45), (0.5, 0.0), (1.0, 0.45)], roof)
        frame.polygon([(0.5, 0.0), (1.0, 0.45), (0.66, 0.45)], (20, 10, 30, 50), own=False)
    else:
        frame.polygon([(0.0, 0.44), (0.18, 0.1), (0.82, 0.1), (1.0, 0.44)], roof)
        frame.polygon([(0.0, 0.44), (0.03, 0.38), (0.97, 0.38), (1.0, 0.44)], (20, 10, 30, 60), own=False)
    door = rng.uniform(0.2, 0.62)
    frame.rectangle(door, 0.64, door + 0.17, 1.0, jitter(rng, (112, 66, 42), 24), own=False)
    for u in (0.16, 0.42, 0.68):
        if abs(u - door) > 0.17:
            frame.rectangle(u, 0.54, u + 0.17, 0.76, (250, 250, 246), own=False)
            frame.rectangle(u + 0.02, 0.56, u + 0.15, 0.74, (92, 142, 176), own=False)


def _car(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    frame.ground_shadow(0.22)
    body = jitter(rng, rng.choice(_BRIGHT), 12)
    glass = (178, 214, 232)
    frame.polygon([(0.2, 0.46), (0.32, 0.04), (0.7, 0.04), (0.84, 0.46)], body)
    frame.polygon([(0.26, 0.44), (0.35, 0.12), (0.5, 0.12), (0.5, 0.44)], glass, own=False)
    frame.polygon([(0.54, 0.44), (0.54, 0.12), (0.67, 0.12), (0.77, 0.44)], glass, own=False)
    frame.polygon([(0.02, 0.5), (0.08, 0.42), (0.86, 0.42), (0.97, 0.52), (1.0, 0.8), (0.0, 0.8)], body)
    frame.rectangle(0.01, 0.66, 0.99, 0.8, (0, 0, 20, 60), own=False)
    frame.rectangle(0.1, 0.45, 0.84, 0.5, (255, 255, 255, 70), own=False)
    frame.ellipse(0.9, 0.52, 0.98, 0.66, (255, 240, 170), own=False)
    frame.rectangle(0.0, 0.54, 0.045, 0.66, (190, 30, 30), own=False)
    for u in (0.12, 0.66):
        frame.ellipse(u, 0.56, u + 0.225, 1.0, (34, 34, 40))
        frame.ellipse(u + 0.06, 0.68, u + 0.165, 0.88, (190, 194, 200), own=False)


def _boat(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    hull = jitter(rng, rng.choice(_HULLS), 10)
    sail = jitter(rng, rng.choice(_SAILS), 6)
    x0, _, x1, y1 = item.box
    canvas.shadow((x0, y1 - 0.015, x1, y1 + 0.03), 20)
    frame.rectangle(0.47, 0.02, 0.51, 0.78, (90, 62, 42))
    frame.polygon([(0.54, 0.04), (0.54, 0.7), (0.96, 0.7)], sail)
    frame.polygon([(0.44, 0.12), (0.44, 0.7), (0.1, 0.7)], shade(sail, 0.9))
    frame.polygon([(0.54, 0.04), (0.54, 0.7), (0.66, 0.7)], (255, 255, 255, 70), own=False)
    frame.polygon([(0.0, 0.75), (1.0, 0.75), (0.84, 0.99), (0.16, 0.99)], hull)
    frame.polygon([(0.09, 0.88), (0.92, 0.88), (0.84, 0.99), (0.16, 0.99)], (0, 0, 30, 70), own=False)
    frame.rectangle(0.02, 0.76, 0.98, 0.8, (255, 255, 255, 130), own=False)


def _dog(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    frame.ground_shadow(0.14)
    fur = jitter(rng, rng.choice(_FURS), 10)
    dark = shade(fur, 0.72)
    frame.line([(0.14, 0.5), (0.05, 0.36), (0.07, 0.2)], fur, 0.11)
    for u, tone in ((0.2, dark), (0.56, dark), (0.12, fur), (0.48, fur)):
        frame.rectangle(u, 0.66, u + 0.12, 1.0, tone)
    frame.ellipse(0.08, 0.38, 0.7, 0.8, fur)
    frame.polygon([(0.48, 0.44), (0.62, 0.2), (0.8, 0.3), (0.68, 0.66)], fur)
    frame.ellipse(0.56, 0.06, 0.9, 0.46, fur)
    frame.ellipse(0.74, 0.22, 1.0, 0.44, fur)
    frame.ellipse(0.12, 0.64, 0.6, 0.79, (0, 0, 20, 40), own=False)
    frame.ellipse(0.56, 0.08, 0.7, 0.46, dark)
    frame.ellipse(0.76, 0.16, 0.82, 0.23, (20, 16, 16), own=False)
    frame.ellipse(0.92, 0.24, 1.0, 0.33, (24, 18, 18), own=False)
    frame.polygon([(0.56, 0.42), (0.72, 0.46), (0.7, 0.54), (0.54, 0.5)], (206, 50, 50), own=False)


def _flower(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    petal = jitter(rng, rng.choice(_PETALS), 10)
    green = jitter(rng, (52, 128, 52), 10)
    x0, y0, x1, _ = item.box
    cx, radius = (x0 + x1) / 2, (x1 - x0) / 2
    cy = y0 + radius
    frame.line([(0.5, 0.4), (0.5, 1.0)], green, 0.07)
    frame.polygon([(0.5, 0.92), (0.72, 0.66), (0.96, 0.66), (0.8, 0.84)], green)
    frame.polygon([(0.5, 0.98), (0.28, 0.74), (0.04, 0.74), (0.22, 0.92)], shade(green, 0.85))
    petals, start = rng.randint(5, 8), rng.random()
    for index in range(petals):
        angle = 2 * pi * (index + start) / petals
        px, py, r = cx + 0.58 * radius * cos(angle), cy + 0.58 * radius * sin(angle), radius * 0.42
        canvas.ellipse((px - r, py - r, px + r, py + r), shade(petal, 0.88 if index % 2 else 1.0))
    r = radius * 0.36
    core = (250, 200, 50) if petal[2] > 100 or petal[1] < 100 else (120, 70, 30)
    canvas.ellipse((cx - r, cy - r, cx + r, cy + r), core)
    canvas.ellipse((cx - r * 0.5, cy - r * 0.6, cx + r * 0.3, cy + r * 0.2), (255, 255, 255, 90), own=False)


def _balloon(canvas: Canvas, item: SceneItem, rng: Random) -> None:
    frame = Frame(canvas, item)
    first, second = rng.sample(_BRIGHT, 2)
    taper = [(0.03, 0.46), (0.97, 0.46), (0.62, 0.8), (0.38, 0.8)]
    frame.ellipse(0, 0, 1, 0.74, first)
    frame.polygon(taper, first)
    frame.ellipse(0.2, 0, 0.8, 0.74, second, own=False)
    frame.polygon([(0.22, 0.5), (0.78, 0.5), (0.58, 0.8), (0.42, 0.8)], second, own=False)
    frame.ellipse(0.36, 0, 0.64, 0.74, first, own=False)
    frame.polygon([(0.36, 0.45), (0.64, 0.45), (0.53, 0.8), (0.47, 0.8)], first, own=False)
    frame.ellipse(0.12, 0.08, 0.42, 0.4, (255, 255, 255, 60), own=False)
    for u in (0.39, 0.59):
        frame.line([(u, 0.79), (u, 0.88)], (80, 60, 40), 0.022)
    frame.rectangle(0.36, 0.86, 0.64, 1.0, (138, 92, 50))


THINGS: dict[str, Callable[[Canvas, SceneItem, Random], None]] = {
    "sun": _sun,
    "moon": _moon,
    "cloud": _cloud,
    "tree": _tree,
    "house": _house,
    "car": _car,
    "boat": _boat,
    "dog": _dog,
    "flower": _flower,
    "balloon": _balloon,
}
