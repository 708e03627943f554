"""Boxes become masks: what a segmenter gives, and how one is configured (`labeling.segment.load` loads it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.precision import DTYPES, dtype_on
from gazetteer.data.core.settings import Count, Effect, OneOf, device_setting, setting, settings

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


@settings("segmenter")
class SegmenterConfig:
    """Which segmenter, and how to use it."""

    path: str = setting(
        Effect.SEGMENTS,
        "A folder or hub id of a SAM, SAM 2, SAM-HQ or EdgeTAM (`transformers`), or a checkpoint file in the authors' "
        "format (`segment_anything`); empty where the detector cuts out itself (SAM 3).",
        default="",
        path=True,
    )
    library: Annotated[str, OneOf(LIBRARIES)] = setting(
        Effect.SEGMENTS,
        "What loads it: `transformers`, or the authors' own package for checkpoint files of theirs.",
        default="transformers",
    )
    model_type: Annotated[str, OneOf(("", *MODEL_TYPES))] = setting(
        Effect.SEGMENTS, "With `segment_anything`, what the checkpoint has to be; empty: whatever it is.", default=""
    )
    mask_threshold: float = setting(Effect.SEGMENTS, "Mask logit above which a pixel belongs to the mask.", default=0.0)
    device: str = device_setting(Effect.SEGMENTS, default="cpu")
    dtype: Annotated[str, OneOf(("", *DTYPES))] = setting(
        Effect.SEGMENTS,
        "Number type of its image encoder; empty: float16 on ``cuda``, elsewhere float32. Boxes are read and masks "
        "drawn in float32 always: half precision would round a box's corners to pixels.",
        default="",
    )
    batch_size: Count = setting(
        Effect.NOTHING, "Pictures per encoder call; half as many from where they do not fit into memory.", default=8
    )
    boxes_per_call: Count = setting(
        Effect.SEGMENTS,
        "Boxes per decoder call, so that hundreds of boxes fit into memory.",
        default=64,
        last_bits=True,
    )
    exact: bool = setting(
        Effect.SEGMENTS,
        "On a CPU, one picture per encoder call whatever the batch size: sums differ in the last bits between "
        "batch shapes, and a mask must not depend on its neighbours.",
        default=True,
        last_bits=True,
    )
    revision: str = setting(Effect.SEGMENTS, "Hub revision to pin, empty for the default.", default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_on(self.device, self.dtype))
