"""Pictures through a detector that looks at each of them once: those that are asked for something, as many as fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.runtime.memory import FittingBatch
from gazetteer.labeling.detect.protocol import Detection

P = TypeVar("P")


def in_batches(
    fitting: FittingBatch,
    images: Sequence[NDArray[np.uint8]],
    concepts: Sequence[Sequence[str]],
    pixels: Callable[[list[NDArray[np.uint8]]], P],
    find: Callable[[P, list[int]], list[list[Detection]]],
) -> list[list[Detection]]:
    """What `find` finds in each picture; none is what a picture shows that is asked for nothing.

    Args:
        pixels: what the model reads of some pictures, made beside it.
        find: the detections in pictures of which it is given that, and their places among `images`.

    Raises:
        InputError: not one list of concepts a picture.
        GazetteerError: out of memory with a single picture.
    """
    check_lists(images, concepts)
    busy = [row for row, asked in enumerate(concepts) if asked]
    made = fitting.prepared(
        len(busy), lambda part: pixels([images[row] for row in busy[part]]), lambda part, given: find(given, busy[part])
    )
    results: list[list[Detection]] = [[] for _ in images]
    for row, detections in zip(busy, chain.from_iterable(made), strict=True):
        results[row] = detections
    return results


def pixel_values(processor: Any, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """What a model reads of pictures [H, W, 3]: [n, 3, h, w] on the CPU, by an image processor of transformers."""
    inputs = processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
    pixels: Tensor = inputs["pixel_values"]
    return pixels


def check_lists(images: Sequence[Any], concepts: Sequence[Sequence[str]]) -> None:
    """Raise InputError unless there is one list of concepts a picture."""
    if len(images) != len(concepts):
        raise InputError(f"{len(images)} pictures but {len(concepts)} lists of concepts.")
