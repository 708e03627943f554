"""A picture and a map of who owns each pixel, drawn together."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from gazetteer.data.scenes.items import SceneItem

Colour = tuple[int, ...]
Point = tuple[float, float]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or brighter (factor > 1)."""
    return tuple(min(255, max(0, int(channel * factor))) for channel in colour[:3])


def jitter(rng: Random, colour: Colour, amount: int = 18) -> Colour:
    """The colour moved at random by up to `amount` in each channel."""
    return tuple(min(255, max(0, channel + rng.randint(-amount, amount))) for channel in colour[:3])


class Canvas:
    """A square RGB picture and its owner map, `side` pixels wide; coordinates are in [0, 1]."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = Image.new("RGB", (side, side), (205, 215, 225))
        self.owners = Image.new("L", (side, side), 0)
        self._draw = ImageDraw.Draw(self.image, "RGBA")
        self._own = ImageDraw.Draw(self.owners)
        self.owner = 0

    def _px(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.side, y * self.side) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: Colour, own: bool = True) -> None:
        """Fill a polygon; `own=False` paints (possibly translucent) without claiming pixels."""
        pixels = self._px(points)
        self._draw.polygon(pixels, fill=fill)
        if own:
            self._own.polygon(pixels, fill=self.owner)

    def ellipse(self, box: Sequence[float], fill: Colour, own: bool = True) -> None:
        """Fill the ellipse within the box (x0, y0, x1, y1)."""
        pixels = [value * self.side for value in _ordered(box)]
        self._draw.ellipse(pixels, fill=fill)
        if own:
            self._own.ellipse(pixels, fill=self.owner)

    def line(self, points: Sequence[Point], fill: Colour, width: float, own: bool = True) -> None:
        """Stroke a line; `width` is a fraction of the picture."""
        pixels = self._px(points)
        stroke = max(1, round(width * self.side))
        self._draw.line(pixels, fill=fill, width=stroke, joint="curve")
        if own:
            self._own.line(pixels, fill=self.owner, width=stroke, joint="curve")

    def gradient(self, points: Sequence[Point], top: Colour, bottom: Colour) -> None:
        """Fill a polygon with a vertical gradient over its own height, and claim it."""
        pixels = self._px(points)
        mask = Image.new("L", (self.side, self.side), 0)
        ImageDraw.Draw(mask).polygon(pixels, fill=255)
        box = mask.getbbox()
        if box is None:
            return
        ramp = np.linspace(top[:3], bottom[:3], box[3] - box[1]).astype(np.uint8)[:, None, :]
        fill = Image.fromarray(ramp).resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST)
        part = mask.crop(box)
        self.image.paste(fill, box[:2], part)
        self.owners.paste(self.owner, box, part)

    def shadow(self, box: Sequence[float], strength: int = 26) -> None:
        """A soft dark ellipse: three translucent ones inside each other."""
        x0, y0, x1, y1 = box
        for shrink in (0.0, 0.12, 0.24):
            dx, dy = (x1 - x0) * shrink / 2, (y1 - y0) * shrink / 2
            self.ellipse((x0 + dx, y0 + dy, x1 - dx, y1 - dy), (10, 15, 30, strength), own=False)


def _ordered(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


class Frame:
    """Drawing in the coordinates of an item's box: u to where it faces, v downwards, in [0, 1]."""

    def __init__(self, canvas: Canvas, item: SceneItem) -> None:
        self.canvas = canvas
        self.box = item.box
        self.flip = item.flip

    def at(self, u: float, v: float) -> Point:
        """Picture coordinates of a point of the box."""
        x0, y0, x1, y1 = self.box
        return x0 + (x1 - x0) * (1 - u if self.flip else u), y0 + (y1 - y0) * v

    def polygon(self, points: Sequence[Point], fill: Colour, own: bool = True) -> None:
        """Fill a polygon given in box coordinates."""
        self.canvas.polygon([self.at(u, v) for u, v in points], fill, own)

    def rectangle(self, u0: float, v0: float, u1: float, v1: float, fill: Colour, own: bool = True) -> None:
        """Fill a rectangle given in box coordinates."""
        self.polygon([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], fill, own)

    def ellipse(self, u0: float, v0: float, u1: float, v1: float, fill: Colour, own: bool = True) -> None:
        """Fill an ellipse given in box coordinates."""
        self.canvas.ellipse((*self.at(u0, v0), *self.at(u1, v1)), fill, own)

    def line(self, points: Sequence[Point], fill: Colour, width: float, own: bool = True) -> None:
        """Stroke a line; `width` is a fraction of the box's height."""
        height = self.box[3] - self.box[1]
        self.canvas.line([self.at(u, v) for u, v in points], fill, width * height, own)

    def ground_shadow(self, height: float = 0.12) -> None:
        """A soft shadow under the box."""
        x0, y0, x1, y1 = self.box
        dy = (y1 - y0) * height
        self.canvas.shadow((x0 - 0.02, y1 - dy * 0.7, x1 + 0.03, y1 + dy * 0.5))
