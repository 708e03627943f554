"""Figures with a dark outline: shapes are collected, then stroked, then filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cos, pi, sin

from gazetteer.data.scenes.canvas import Colour, Frame, Point

OUTLINE = 0.007
"""Half the width of an outline, as a fraction of the picture."""


@dataclass
class Pen:
    """Draws in the coordinates of a frame; what is added as a shape belongs to the figure and gets an outline."""

    frame: Frame
    ink: Colour
    _shapes: list[tuple[tuple[Point, ...], Colour, float]] = field(default_factory=list)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        self._shapes.append((tuple(points), fill, 0.0))

    def ellipse(self, u0: float, v0: float, u1: float, v1: float, fill: Colour, turn: float = 0.0) -> None:
        """A filled ellipse within a box, turned clockwise about its centre by `turn` radians (of a square frame)."""
        self.polygon(oval(u0, v0, u1, v1, turn), fill)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """A stroke with round ends; `width` is a fraction of the frame's height."""
        self._shapes.append((tuple(points), fill, width))

    def finish(self) -> None:
        """Paint the outlines of all shapes, then the shapes."""
        canvas, box = self.frame.canvas, self.frame.box
        tall = box[3] - box[1]
        for grow in (OUTLINE, 0.0):
            for points, fill, width in self._shapes:
                colour = self.ink if grow else fill
                if width:
                    _stroke(self.frame, points, colour, width * tall + 2 * grow)
                    continue
                if grow:
                    around = [self.frame.at(*point) for point in (*points, points[0], points[1])]
                    canvas.line(around, colour, 2 * grow)
                self.frame.polygon(points, colour)
        self._shapes.clear()


def _stroke(frame: Frame, points: Sequence[Point], fill: Colour, width: float) -> None:
    places = [frame.at(*point) for point in points]
    frame.canvas.line(places, fill, width)
    for x, y in (places[0], places[-1]):
        frame.canvas.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill)


def oval(u0: float, v0: float, u1: float, v1: float, turn: float = 0.0, corners: int = 24) -> tuple[Point, ...]:
    """Corners of an ellipse within a box, turned by `turn` radians."""
    cu, cv, ru, rv = (u0 + u1) / 2, (v0 + v1) / 2, (u1 - u0) / 2, (v1 - v0) / 2
    points = []
    for corner in range(corners):
        angle = 2 * pi * corner / corners
        x, y = ru * cos(angle), rv * sin(angle)
        points.append((cu + x * cos(turn) - y * sin(turn), cv + x * sin(turn) + y * cos(turn)))
    return tuple(points)
