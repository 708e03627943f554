"""What a scene's plan is made of.

Coordinates are fractions of the picture: x to the right, y downwards, both in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SceneItem:
    """One thing or region: its box (x0, y0, x1, y1), which way it faces and the seed of its look."""

    concept: str
    box: Box
    flip: bool
    look: int
    variant: str = ""

    @property
    def centre_x(self) -> float:
        """Horizontal centre, as a fraction of the picture's width."""
        return (self.box[0] + self.box[2]) / 2

    @property
    def centre_y(self) -> float:
        """Vertical centre, as a fraction of the picture's height."""
        return (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class SceneLayout:
    """A scene's plan: `items` in painting order, back to front; `view` is one of VIEWS where views were asked for."""

    seed: int
    style: str | None
    ground: str
    horizon: float
    items: tuple[SceneItem, ...]
    view: str | None = None


def overlap(a: Box, b: Box) -> float:
    """Intersection of two boxes over the area of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller
