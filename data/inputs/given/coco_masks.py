"""The masks of COCO JSON: polygons, plain and compressed run lengths, drawn by pycocotools.

What it lacks is added: it draws run lengths that do not cover the picture with whatever was in memory, cuts an odd
polygon short, and takes all memory for a corner that is no number or lies far away.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pycocotools import mask as masks

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.picture import Masks
from gazetteer.data.tables.masks import struct_to_mask

_CORNERS = 6
"""Fewest numbers of a polygon that encloses something."""

_ONE_RUN = 7
"""Most characters of one run length (`gazetteer.data.tables.masks`): that of the background, where it is all there is.
"""

_BEYOND = 16
"""How many sides of the picture away from it a corner may lie."""


def says_where(annotation: dict[str, Any]) -> bool:
    """Whether an annotation has a mask, and not a box alone."""
    shape = annotation.get("segmentation")
    if isinstance(shape, list):
        return any(not isinstance(polygon, list) or len(polygon) >= _CORNERS for polygon in shape)
    return bool(shape)


def is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether an annotation covers many of a kind, or is marked to be ignored, which says as little of its pixels."""
    return bool(annotation.get("iscrowd") or annotation.get("ignore"))


def shows_nothing(annotation: dict[str, Any], height: int, width: int) -> bool:
    """Whether a mask has no pixel inside its picture; what cannot be read is left to `decoded`, which says so."""
    shape = annotation["segmentation"]
    try:
        if isinstance(shape, list):
            return all(_outside(polygon, height, width) for polygon in shape if len(polygon) >= _CORNERS)
        if isinstance(shape["counts"], list):
            return not any(shape["counts"][1::2]) and sum(shape["counts"]) == height * width
        return len(shape["counts"]) <= _ONE_RUN and not struct_to_mask(shape).any()
    except (InputError, KeyError, TypeError):
        return False


def decoded(annotation: dict[str, Any], height: int, width: int, key: str) -> Masks:
    """The mask of an annotation of the picture `key`, bool [height, width].

    Raises:
        InputError: it is none, or of another size.
    """
    shape, expected = annotation["segmentation"], [height, width]
    try:
        if isinstance(shape, list):
            return _polygons(shape, height, width)
        size = [int(side) for side in shape["size"]]
        if size == expected:
            return _plain(shape["counts"], *size) if isinstance(shape["counts"], list) else struct_to_mask(shape)
    except (InputError, KeyError, TypeError, ValueError, OverflowError) as error:
        said = str(error).rstrip(".")
        raise InputError(f"An annotation of {key} has a segmentation that cannot be read ({said}).") from error
    raise InputError(f"A mask of {key} measures {' × '.join(map(str, size))}, its picture {height} × {width}.")


def _polygons(shape: list[Any], height: int, width: int) -> Masks:
    """The union of polygons x0, y0, x1, y1, …; what has fewer than three corners encloses nothing.

    Of polygons that lie between the middles of pixels, the pixel in the middle of the first: something is there.
    """
    far = _BEYOND * max(height, width)
    for polygon in shape:
        corners = polygon if isinstance(polygon, list) else [polygon]
        if len(corners) % 2 or not all(type(v) in (int, float) for v in corners):
            raise InputError("A polygon is a list of numbers, x and y in turn.")
        if not all(math.isfinite(v) and abs(v) <= far for v in corners):
            raise InputError(f"A polygon has a corner that lies nowhere near the picture of {height} × {width}.")
    enclosing = [polygon for polygon in shape if len(polygon) >= _CORNERS]
    if not enclosing:
        return np.zeros((height, width), np.bool_)
    drawn = np.asarray(masks.decode(masks.merge(masks.frPyObjects(enclosing, height, width)))).astype(np.bool_)
    inside = [polygon for polygon in enclosing if not _outside(polygon, height, width)]
    if inside and not drawn.any():
        column, row = np.mean(inside[0][::2]), np.mean(inside[0][1::2])
        drawn[min(max(int(row), 0), height - 1), min(max(int(column), 0), width - 1)] = True
    return drawn


def _outside(polygon: list[Any], height: int, width: int) -> bool:
    """Whether all of a polygon lies beyond an edge of its picture."""
    columns, rows = polygon[::2], polygon[1::2]
    return bool(max(columns) <= 0 or min(columns) >= width or max(rows) <= 0 or min(rows) >= height)


def _plain(counts: list[Any], height: int, width: int) -> Masks:
    """Of run lengths, background first, the pixels taken column by column."""
    if not all(type(run) in (int, float) and run >= 0 and run == int(run) for run in counts):
        raise InputError("Run lengths are whole numbers from 0 on.")
    runs = [int(run) for run in counts]
    if sum(runs) != height * width:
        raise InputError(f"Its run lengths do not add up to {height} × {width} pixels.")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
