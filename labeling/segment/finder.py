"""Phrases become segments: one protocol over a detector with a segmenter, and over a model that does both.

finder = load_finder(DetectorConfig(path="facebook/sam3"), SegmenterConfig())
[[Segment(concept="dog", score=0.81, box=..., mask=..., predicted_iou=...), ...]] = finder.find([image], [["dog"]])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detection, Detector, DetectorConfig
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Box, Mask, Segmenter, SegmenterConfig


@dataclass(frozen=True, eq=False)
class Segment:
    """One instance: score in 0..1, box xyxy in px, mask bool [H, W] of the picture, the model's estimate of its IoU."""

    concept: str
    score: float
    box: Box
    mask: NDArray[np.bool_]
    predicted_iou: float


class Finder(Protocol):
    """Finds phrases in pictures and cuts them out."""

    def find(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Segment]]:
        """Segments per picture, best first; what was found and has no pixel is left out.

        images: uint8 [H, W, 3] each, of any size. concepts: what to look for, per picture.

        Raises:
            InputError: as `Detector.detect`.
        """
        ...


@dataclass(frozen=True)
class ModelFinder:
    """A `Finder` of a detector, and of a segmenter where the detector gives no masks."""

    detector: Detector
    segmenter: Segmenter | None

    def find(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Segment]]:
        """See `Finder.find`."""
        detections = self.detector.detect(images, concepts)
        masks = cut_out(self.segmenter, images, detections)
        return [
            [
                Segment(detection.concept, detection.score, detection.box, mask.mask, mask.predicted_iou)
                for detection, mask in zip(own, cut, strict=True)
                if mask.mask.any()
            ]
            for own, cut in zip(detections, masks, strict=True)
        ]


def load_finder(detector: DetectorConfig, segmenter: SegmenterConfig) -> ModelFinder:
    """Load what finds and cuts out; a segmenter without a path leaves that to the detector (SAM 3).

    Raises:
        InputError: as `load_detector` and `load_segmenter`.
    """
    return ModelFinder(load_detector(detector), load_segmenter(segmenter))


def cut_out(
    segmenter: Segmenter | None, images: Sequence[NDArray[np.uint8]], detections: Sequence[Sequence[Detection]]
) -> list[list[Mask]]:
    """One mask per detection: its own where the segmenter is None, else what the segmenter makes of its box.

    A detector that cuts out itself has no estimate of a mask's IoU; its score stands for it.

    Raises:
        InputError: there is no segmenter, and the detector gives boxes only.
    """
    if segmenter is not None:
        return segmenter.segment(images, [[detection.box for detection in own] for own in detections])
    if any(detection.mask is None for own in detections for detection in own):
        raise InputError(NO_SEGMENTER)
    return [
        [Mask(detection.mask, detection.score) for detection in own if detection.mask is not None] for own in detections
    ]


NO_SEGMENTER = (
    "segmenter.path names no model, and the detector gives boxes only; name a SAM to cut them out, or a SAM 3 as "
    "detector, which does both."
)
