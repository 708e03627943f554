"""How good a grid could be: the data-set IoU of a concept's own masks rounded to cells.

A feature map can only choose whole cells. For a concept, choose the cells whose share of mask pixels is at
least tau and compare the chosen cells with the masks, in pixels, summed over all images; cells of the largest
share first is the best order for any number of cells, so the best tau bounds the data-set IoU of every
feature on this grid.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, read_concepts
from gazetteer.labeling.evidence.pooling import Grid, cell_areas

CEILING = pa.schema(
    [
        pa.field("concept", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("half_iou", pa.float64()),
        pa.field("best_iou", pa.float64()),
        pa.field("best_share", pa.float64()),
    ]
)
"""`half_iou`: tau = 0.5; `best_iou`, `best_share`: the best tau; null for a concept without pixels."""


def best_rounding(pixels: NDArray[np.int64], areas: NDArray[np.int64]) -> tuple[float, float, float]:
    """Data-set IoU of one concept's masks rounded to cells.

    Args:
        pixels: int64 [U, cells], mask pixels in each cell; not all 0.
        areas: int64 [U, cells], pixels of each cell.
    Returns:
        (IoU at tau = 0.5, best IoU, the tau that reaches it).
    """
    inside, area = pixels[areas > 0], areas[areas > 0]
    fraction = inside / area
    total = int(inside.sum())
    half = fraction >= 0.5
    half_iou = inside[half].sum() / (area[half].sum() + total - inside[half].sum())
    order = np.argsort(-fraction, kind="stable")
    chosen, size = np.cumsum(inside[order]), np.cumsum(area[order])
    iou = chosen / (size + total - chosen)
    # A threshold takes all cells of equal share or none.
    ends = np.flatnonzero(np.append(np.diff(fraction[order]) != 0, True))
    best = ends[np.argmax(iou[ends])]
    return float(half_iou), float(iou[best]), float(fraction[order][best])


def _rows(maps: ConceptMaps, grid: Grid) -> list[dict[str, object]]:
    """One row per concept on one grid."""
    rows: list[dict[str, object]] = []
    areas = {tuple(size): cell_areas(tuple(size), grid) for size in maps.sizes.tolist()}
    for number, concept in enumerate(maps.concepts):
        used = np.flatnonzero(maps.union_concept == number)
        row: dict[str, object] = {"concept": concept, "height": grid[0], "width": grid[1], "images": len(used)}
        pixels = maps.pixels[grid][used].astype(np.int64)
        if pixels.any():
            each = np.stack([areas[tuple(maps.sizes[i].tolist())] for i in maps.union_image[used]])
            row["half_iou"], row["best_iou"], row["best_share"] = best_rounding(pixels, each)
        rows.append(row)
    return rows


def grid_ceiling(images: pa.Table, segments: pa.Table, grids: Iterable[Grid]) -> pa.Table:
    """The IoU ceiling of every concept on every grid (CEILING), by grid, then concept.

    Args:
        images, segments: schemas.IMAGES and schemas.SEGMENTS.
        grids: (h, w).
    Raises:
        InputError: tables that contradict each other, or a corrupt mask.
    """
    wanted = sorted(set(grids))
    maps = read_concepts(images, segments, wanted)
    return pa.Table.from_pylist([row for grid in wanted for row in _rows(maps, grid)], schema=CEILING)
