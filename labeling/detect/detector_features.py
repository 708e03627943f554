"""The detector's image backbone as a feature extractor: the one network of a run that sees pictures, and is offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.grounding_dino.detector import GroundingDinoDetector
from gazetteer.labeling.detect.protocol import Detector


def has_backbone(detector: Detector) -> bool:
    """Whether `backbone_features` reads this detector: a Grounding DINO of transformers."""
    return isinstance(detector, GroundingDinoDetector) and hasattr(detector, "images")


def backbone_features(
    detector: Detector, batch_size: int = 8
) -> Callable[[Sequence[NDArray[np.uint8]]], list[list[NDArray[np.float32]]]]:
    """What reads pictures uint8 [H, W, 3] (of one size) into the backbone's maps [channels, h, w], level by level.

    Raises:
        InputError: a detector without such a backbone (`has_backbone`).
    """
    if not isinstance(detector, GroundingDinoDetector) or not has_backbone(detector):
        raise InputError("Features of pictures are read from a Grounding DINO of transformers alone.")

    @torch.inference_mode()
    def read(images: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
        features: list[list[NDArray[np.float32]]] = []
        for start in range(0, len(images), batch_size):
            part = list(images[start : start + batch_size])
            pixels = detector.images(images=part, return_tensors="pt", input_data_format="channels_last")
            backbone = detector.model.model.backbone.conv_encoder.model
            maps = backbone(pixels["pixel_values"].to(detector.device, detector.model.dtype)).feature_maps
            levels = [level.float().cpu().numpy() for level in maps]
            features += [[level[i] for level in levels] for i in range(len(part))]
        return features

    return read
