"""The places that a feature can be called by: built in, fractions of the picture, the same on every grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.evidence.pooling import Grid

_EDGE = 1 / 8
"""How much of the picture an edge takes: one cell of an 8 x 8 grid, two of 16 x 16."""

# (top, bottom, left, right) as fractions of height and width.
PLACES: dict[str, tuple[float, float, float, float]] = {
    "top edge": (0, _EDGE, 0, 1),
    "bottom edge": (1 - _EDGE, 1, 0, 1),
    "left edge": (0, 1, 0, _EDGE),
    "right edge": (0, 1, 1 - _EDGE, 1),
    "top half": (0, 0.5, 0, 1),
    "bottom half": (0.5, 1, 0, 1),
    "left half": (0, 1, 0, 0.5),
    "right half": (0, 1, 0.5, 1),
    "top left": (0, 0.5, 0, 0.5),
    "top right": (0, 0.5, 0.5, 1),
    "bottom left": (0.5, 1, 0, 0.5),
    "bottom right": (0.5, 1, 0.5, 1),
    "centre": (0.25, 0.75, 0.25, 0.75),
}
"""Where every place begins and ends: top, bottom, left, right as fractions of the picture's height and width."""


def place_maps(grid: Grid) -> NDArray[np.float64]:
    """Share of every cell that lies in each place: float64 [places, h * w], in the order of `PLACES`."""
    height, width = grid
    return np.stack([
        np.outer(_inside(height, top, bottom), _inside(width, left, right)).ravel()
        for top, bottom, left, right in PLACES.values()
    ])  # fmt: skip


def _inside(cells: int, start: float, end: float) -> NDArray[np.float64]:
    """Share of each of `cells` equal intervals of [0, 1] that lies between `start` and `end`: [cells]."""
    edges = np.arange(cells + 1) / cells
    overlap: NDArray[np.float64] = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None) * cells
    return overlap
