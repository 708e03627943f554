"""Rendering: a seed becomes a picture, its caption and the exact mask of everything in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gazetteer.data.scenes.captions import write_caption
from gazetteer.data.scenes.items import SceneItem
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.paint import paint
from gazetteer.data.scenes.styles import Ground, apply_style
from gazetteer.data.scenes.world import CONCEPTS, PICTURE_SIZE

MIN_PIXELS = 12
"""Items with fewer visible pixels than this are neither instances nor named in the caption."""

_SUPERSAMPLING = 2
_THINGS = {concept.name for concept in CONCEPTS if concept.kind == "thing"}


@dataclass(frozen=True, eq=False)
class Instance:
    """One visible item: mask [H, W] of its visible pixels; box [4] = (x0, y0, x1, y1), floats.

    The box is tight: x1 and y1 are one past the last pixel, all in pixels of the picture.
    """

    concept: str
    mask: NDArray[np.bool_]
    box: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered scene: image uint8 [H, W, 3]; style None is plain, view None the plain landscape.

    `planned` holds the concepts of the layout, also those of which nothing can be seen.
    """

    seed: int
    image: NDArray[np.uint8]
    caption: str
    style: str | None
    instances: tuple[Instance, ...]
    view: str | None = None
    planned: frozenset[str] = frozenset()


def render(seed: int, size: int = PICTURE_SIZE, views: Sequence[str] = ()) -> Scene:
    """Render the scene of `seed`, seen from one of `views`, at `size` x `size` pixels; deterministic.

    Without views it is the plain landscape with a horizon.
    """
    layout = sample_layout(seed, views)
    canvas = paint(layout, size * _SUPERSAMPLING)
    owners = np.asarray(canvas.owners)[::_SUPERSAMPLING, ::_SUPERSAMPLING].copy()
    small = canvas.image.resize((size, size), Image.Resampling.BOX)
    ground = _ground(layout.items, owners)
    image = apply_style(layout.style, np.asarray(small), ground, seed)
    counts = np.bincount(owners.ravel(), minlength=256)
    visible = [index for index in range(len(layout.items)) if counts[index + 1] >= MIN_PIXELS]
    instances = tuple(_instance(layout.items[index], owners == index + 1) for index in visible)
    caption = write_caption(layout, [layout.items[index] for index in visible])
    planned = frozenset(item.concept for item in layout.items)
    return Scene(seed, np.ascontiguousarray(image), caption, layout.style, instances, layout.view, planned)


def _ground(items: tuple[SceneItem, ...], owners: NDArray[np.uint8]) -> Ground:
    numbers = {
        kind: tuple(index + 1 for index, item in enumerate(items) if item.concept in names)
        for kind, names in (("things", _THINGS), ("sky", {"sky"}), ("lights", {"sun", "moon"}))
    }
    return Ground(owners, numbers["things"], next(iter(numbers["sky"]), 0), numbers["lights"])


def _instance(item: SceneItem, mask: NDArray[np.bool_]) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)
    return Instance(item.concept, mask, box)
