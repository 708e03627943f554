"""Pictures through a model that looks at each of them once: those that are asked for something, as many as fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.runtime.memory import FittingBatch

P = TypeVar("P")
R = TypeVar("R")


def in_batches(
    fitting: FittingBatch,
    images: Sequence[NDArray[np.uint8]],
    asked: Sequence[Sequence[Any]],
    pixels: Callable[[list[NDArray[np.uint8]]], P],
    find: Callable[[P, list[int]], list[list[R]]],
) -> list[list[R]]:
    """What `find` finds in each picture; nothing is found in a picture that is asked for nothing.

    Args:
        asked: for each picture, what to look for there: concepts, boxes.
        pixels: what the model reads of some pictures, made beside it.
        find: what is found in pictures of which it is given that, and their places among `images`.

    Raises:
        InputError: not one list of what is asked a picture.
        GazetteerError: out of memory with a single picture.
    """
    check_lists(images, asked)
    busy = [row for row, own in enumerate(asked) if len(own)]
    made = fitting.prepared(
        len(busy), lambda part: pixels([images[row] for row in busy[part]]), lambda part, given: find(given, busy[part])
    )
    results: list[list[R]] = [[] for _ in images]
    for row, results_of in zip(busy, chain.from_iterable(made), strict=True):
        results[row] = results_of
    return results


def pixel_values(processor: Any, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """What a model reads of pictures [H, W, 3]: [n, 3, h, w] on the CPU, by an image processor of transformers."""
    inputs = processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
    pixels: Tensor = inputs["pixel_values"]
    return pixels


def check_lists(images: Sequence[Any], asked: Sequence[Sequence[Any]]) -> None:
    """Raise InputError unless there is one list of what is asked a picture."""
    if len(images) != len(asked):
        raise InputError(f"{len(images)} pictures but {len(asked)} lists of what to look for in them.")
