"""Concepts become boxes: what a detector gives, and how one is configured (`labeling.detect.load` loads it).

detector = load_detector(DetectorConfig(path="IDEA-Research/grounding-dino-tiny"))
[[Detection(concept="dog", score=0.81, box=(12.0, 40.5, 96.2, 120.0)), ...]] = detector.detect([image], [["dog"]])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.weights.loading import DTYPES, check_choice, check_share

LIBRARIES = ("transformers", "groundingdino")


@dataclass(frozen=True)
class Detection:
    """One box: score in 0..1 (4 decimals), box xyxy in px of the original picture (2 decimals)."""

    concept: str
    score: float
    box: tuple[float, float, float, float]


class Detector(Protocol):
    """Finds asked concepts in pictures."""

    def detect(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Boxes per picture, best first.

        images: uint8 [H, W, 3] each, of any size. concepts: what to look for, per picture; an empty
        list gives no detections.

        Raises:
            InputError: a concept that cannot be asked (`tokens`), or two that are the same to the detector.
        """
        ...

    def tokens(self, concept: str) -> tuple[int, ...]:
        """What the detector reads of a concept: token ids, by which it tells concepts apart.

        Raises:
            InputError: the concept has no word, none that the tokenizer knows, or too many.
        """
        ...


@dataclass(frozen=True)
class DetectorConfig:
    """Which detector, and how to use it.

    Attributes:
        path: a folder or hub id of a Grounding DINO, MM Grounding DINO or OWLv2 (`transformers`), or a checkpoint
            file in the authors' format (`groundingdino`).
        library: one of LIBRARIES.
        config: with `groundingdino`, the settings of the checkpoint: the name of a published configuration
            (default: GroundingDINO_SwinT_OGC), or a JSON or YAML file of the same keys.
        text_encoder: with `groundingdino`, folder or hub id of the BERT whose tokenizer and sizes the checkpoint
            uses; empty: the one its settings name.
        box_threshold: lowest score of a phrase that becomes a box, 0..1; OWLv2's scores are lower, 0.1 to 0.2 suits it.
        nms_iou: of two boxes of one concept that overlap more than this, the better one stays.
        device: a torch device, e.g. ``cpu``, ``cuda:1``.
        dtype: one of DTYPES.
        batch_size: pictures per model call.
        exact: on a CPU, one picture per call whatever the batch size: sums differ in the last bits
            between batch shapes, and a box at the threshold must not depend on its neighbours.
        revision: hub revision to pin, empty for the default.
    """

    path: str
    library: str = "transformers"
    config: str = ""
    text_encoder: str = ""
    box_threshold: float = 0.35
    nms_iou: float = 0.7
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 8
    exact: bool = True
    revision: str = ""

    def __post_init__(self) -> None:
        check_choice("detector.library", self.library, LIBRARIES)
        check_choice("detector.dtype", self.dtype, DTYPES)
        check_share("detector.box_threshold", self.box_threshold)
        check_share("detector.nms_iou", self.nms_iou)
        if self.batch_size < 1:
            raise InputError(f"detector.batch_size is {self.batch_size}; accepted: 1 or more.")
