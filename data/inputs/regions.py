"""Where in a picture an edit acts: a box or a mask, in shares of the picture, and the cells of a grid they hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.plain_values import make_floats
from gazetteer.data.tables.masks import mask_to_struct, struct_to_mask

QUADRANTS: dict[str, tuple[float, float, float, float]] = {
    "top left": (0.0, 0.0, 0.5, 0.5),
    "top right": (0.5, 0.0, 1.0, 0.5),
    "bottom left": (0.0, 0.5, 0.5, 1.0),
    "bottom right": (0.5, 0.5, 1.0, 1.0),
}


@dataclass(frozen=True)
class Region:
    """Where an edit acts; nothing set means everywhere.

    A place that holds no cell of a grid, as a small one of a coarse block, is the cell nearest to its centre of mass.

    Attributes:
        box: x0, y0, x1, y1 as shares of width and height; a cell belongs to it when its centre does.
        mask_size, mask_counts: a mask as COCO run lengths (data/tables/masks.py); a cell belongs to it when at least
            half of it is covered.
    """

    box: tuple[float, ...] = ()
    mask_size: tuple[int, ...] = ()
    mask_counts: str = ""

    def __post_init__(self) -> None:
        make_floats(self, "box")
        if self.box and self.mask_counts:
            raise InputError("A region is a box or a mask, not both.")
        if bool(self.mask_size) != bool(self.mask_counts):
            raise InputError("A region's mask needs both its mask_size and its mask_counts.")
        if self.box:
            good = len(self.box) == 4 and all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in self.box)
            if not good or self.box[0] >= self.box[2] or self.box[1] >= self.box[3]:
                raise InputError(
                    f"A region's box is x0, y0, x1, y1 in 0 … 1 with x0 < x1 and y0 < y1, not {list(self.box)}."
                )
        if self.mask_counts and not self._mask().any():
            raise InputError("A region's mask is empty.")

    @property
    def everywhere(self) -> bool:
        """Whether the region is the whole picture."""
        return not self.box and not self.mask_counts

    def _mask(self) -> NDArray[np.bool_]:
        return struct_to_mask({"size": self.mask_size, "counts": self.mask_counts})

    def grid(self, height: int, width: int) -> NDArray[np.bool_]:
        """bool [height, width]: the cells of a grid that belong to the region; at least one, the nearest."""
        cells = self._held(height, width)
        if not cells.any():
            y, x = self._centre()
            cells[min(int(y * height), height - 1), min(int(x * width), width - 1)] = True
        return cells

    def holds_cell(self, height: int, width: int) -> bool:
        """Whether the region is large enough to hold a cell of this grid."""
        return bool(self._held(height, width).any())

    def _held(self, height: int, width: int) -> NDArray[np.bool_]:
        if self.everywhere:
            return np.ones((height, width), dtype=bool)
        if self.box:
            x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
            x0, y0, x1, y1 = self.box
            return ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None, :]
        mask = self._mask().astype(np.float64)
        held: NDArray[np.bool_] = _fractions(mask.shape[0], height) @ mask @ _fractions(mask.shape[1], width).T >= 0.5
        return held

    def _centre(self) -> tuple[float, float]:
        """y, x of the centre of mass of a box or mask, as shares of height and width."""
        if self.box:
            x0, y0, x1, y1 = self.box
            return (y0 + y1) / 2, (x0 + x1) / 2
        rows, columns = np.nonzero(self._mask())
        height, width = self.mask_size
        return float(rows.mean() + 0.5) / height, float(columns.mean() + 0.5) / width

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> Region:
        """The region of a mask bool [height, width] of any size; InputError when it is empty."""
        struct = mask_to_struct(mask)
        return cls(mask_size=tuple(struct["size"]), mask_counts=struct["counts"])


def _fractions(pixels: int, cells: int) -> NDArray[np.float64]:
    """[cells, pixels]: which share of each cell each pixel covers, along one side; rows sum to 1."""
    edges = np.arange(cells + 1) * pixels / cells
    place = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], place + 1) - np.maximum(edges[:-1, None], place)
    return np.clip(overlap, 0.0, None) * cells / pixels
