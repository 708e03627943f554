"""Boxes become masks: what a segmenter gives, and how one is configured (`labeling.segment.load` loads it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.weights.loading import DTYPES, check_choice

LIBRARIES = ("transformers", "segment_anything")
MODEL_TYPES = ("vit_b", "vit_l", "vit_h")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Mask:
    """One mask: bool [H, W] of the original picture; predicted_iou, the model's own estimate (4 decimals)."""

    mask: NDArray[np.bool_]
    predicted_iou: float


class Segmenter(Protocol):
    """Cuts out what is in a box."""

    def segment(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        """One mask per box, in the order of the boxes.

        images: uint8 [H, W, 3] each, of any size. boxes: xyxy in px of the original picture, any number
        of them per picture; a picture without boxes costs nothing.
        """
        ...


@dataclass(frozen=True)
class SegmenterConfig:
    """Which segmenter, and how to use it.

    Attributes:
        path: a folder or hub id of a SAM or SAM 2 (`transformers`), or a checkpoint file in the authors' format
            (`segment_anything`).
        library: one of LIBRARIES.
        model_type: with `segment_anything`, one of MODEL_TYPES that the checkpoint has to be; empty: whatever it is.
        mask_threshold: mask logit above which a pixel belongs to the mask.
        device: a torch device, e.g. ``cpu``, ``cuda:1``.
        dtype: one of DTYPES.
        batch_size: pictures per encoder call.
        boxes_per_call: boxes per decoder call, so that hundreds of boxes fit into memory.
        exact: on a CPU, one picture per encoder call whatever the batch size: sums differ in the last
            bits between batch shapes, and a mask must not depend on its neighbours.
        revision: hub revision to pin, empty for the default.
    """

    path: str
    library: str = "transformers"
    model_type: str = ""
    mask_threshold: float = 0.0
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 8
    boxes_per_call: int = 64
    exact: bool = True
    revision: str = ""

    def __post_init__(self) -> None:
        check_choice("segmenter.library", self.library, LIBRARIES)
        check_choice("segmenter.dtype", self.dtype, DTYPES)
        if self.model_type:
            check_choice("segmenter.model_type", self.model_type, MODEL_TYPES)
        for name in ("batch_size", "boxes_per_call"):
            if getattr(self, name) < 1:
                raise InputError(f"segmenter.{name} is {getattr(self, name)}; accepted: 1 or more.")
