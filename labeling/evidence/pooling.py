"""Masks pooled to a grid: how many of a mask's pixels lie in each cell.

A feature map has one value a cell; comparing it with a mask under nearest upsampling needs only these counts,
so every intersection at pixel resolution becomes a product at grid resolution, without loss. Pixel y of a
picture of H rows belongs to grid row floor(y * h / H), as in nearest upsampling; columns alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError

Grid = tuple[int, int]


def cell_edges(pixels: int, cells: int) -> NDArray[np.int64]:
    """First pixel of every cell and the end: int64 [cells + 1], edge r = ceil(r * pixels / cells).

    A cell may be empty when there are more cells than pixels.
    """
    if pixels < 1 or cells < 1:
        raise InputError(f"A picture and a grid need at least one row and column, not {pixels} and {cells}.")
    return -((-np.arange(cells + 1, dtype=np.int64) * pixels) // cells)


def cell_areas(size: Grid, grid: Grid) -> NDArray[np.int64]:
    """Pixels in every cell, row-major: int64 [h * w]; they sum to H * W."""
    rows, columns = (np.diff(cell_edges(pixels, cells)) for pixels, cells in zip(size, grid, strict=True))
    return np.outer(rows, columns).ravel()


def _segment_sums(values: NDArray[np.int64], cells: int, axis: int) -> NDArray[np.int64]:
    """Sums of `values` over the pixels of each cell along `axis`, whether or not the sizes divide."""
    total = np.cumsum(values, axis=axis, dtype=np.int64)
    pad = [(0, 0)] * values.ndim
    pad[axis] = (1, 0)
    edges = np.take(np.pad(total, pad), cell_edges(values.shape[axis], cells), axis=axis)
    return np.diff(edges, axis=axis).astype(np.int64)


def _pool(pixels: NDArray[np.generic], grid: Grid) -> NDArray[np.int64]:
    """[S, H, W] of bool or counts -> int64 [S, h, w] sums per cell."""
    count, height, width = pixels.shape
    h, w = grid
    if height % h or width % w:
        return _segment_sums(_segment_sums(pixels.astype(np.int64), w, axis=2), h, axis=1)
    # Rows first: that sum runs along contiguous memory; a column of at most 65,535 pixels fits 16 bits.
    narrow = np.uint16 if pixels.dtype == np.bool_ and height // h < 2**16 else np.int64
    rows = pixels.reshape(count, h, height // h, width).sum(axis=2, dtype=narrow)
    return rows.reshape(count, h, w, width // w).sum(axis=3, dtype=np.int64)


def pool_masks(masks: NDArray[np.bool_], grids: Iterable[Grid]) -> dict[Grid, NDArray[np.int64]]:
    """Pixels of every mask in every cell, for several grids at once.

    The pictures are read once: when the least common grid divides the picture, coarser grids are block sums
    of it.

    Args:
        masks: bool [S, H, W], all of one picture size.
        grids: the (h, w) wanted.
    Returns:
        {(h, w): int64 [S, h * w]}, cells row-major.
    Raises:
        InputError: `masks` is not a stack of boolean pictures, or a grid has no cells.
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise InputError(f"Masks must be a boolean stack [S, H, W], not {masks.dtype} {list(masks.shape)}.")
    wanted = sorted(set(grids))
    if any(h < 1 or w < 1 for h, w in wanted):
        raise InputError(f"A grid needs at least one row and one column, not {wanted}.")
    common = (math.lcm(1, *(h for h, _ in wanted)), math.lcm(1, *(w for _, w in wanted)))
    divides = masks.shape[1] % common[0] == 0 and masks.shape[2] % common[1] == 0
    source: NDArray[np.generic] = _pool(masks, common) if divides else masks
    return {grid: _pool(source, grid).reshape(len(masks), -1) for grid in wanted}


def pool_mask(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.int64]:
    """Pixels of one mask [H, W] in every cell of `grid`, row-major: int64 [h * w]."""
    return pool_masks(np.asarray(mask)[None], [grid])[grid][0]
