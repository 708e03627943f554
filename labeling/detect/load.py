"""Loading the configured detector."""

from __future__ import annotations

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.protocol import Detector, DetectorConfig
from gazetteer.labeling.weights.loading import model_type

SEGMENTING = ("sam3", "sam3_video", "sam3_lite_text")
"""Kinds of models that also cut out what they find; the published folders of SAM 3 hold its video model."""


def segments(config: DetectorConfig) -> bool:
    """Whether a detector also gives masks; raises InputError where there is no model."""
    return config.library == "transformers" and model_type("detector", config.path, config.revision) in SEGMENTING


def load_detector(config: DetectorConfig) -> Detector:
    """Load the configured detector, in evaluation mode on its device.

    Raises:
        InputError: the path holds no such model, the device cannot be used, or the library is missing.
    """
    if config.library == "groundingdino":
        from gazetteer.labeling.detect.grounding_dino.original import load_original_grounding_dino

        return load_original_grounding_dino(config)
    kind = model_type("detector", config.path, config.revision)
    if kind == "owlv2":
        from gazetteer.labeling.detect.owlv2 import load_owlv2

        return load_owlv2(config)
    if kind in SEGMENTING:
        from gazetteer.labeling.detect.sam3 import load_sam3

        return load_sam3(config)
    if kind == "omdet-turbo":
        from gazetteer.labeling.detect.omdet import load_omdet

        return load_omdet(config)
    if kind in ("grounding-dino", "mm-grounding-dino"):
        from gazetteer.labeling.detect.grounding_dino.detector import load_grounding_dino

        return load_grounding_dino(config)
    if kind == "florence2":
        raise InputError(
            f"{config.path} is a Florence-2, whose boxes have no score and which boxes every phrase, there or not; "
            "take grounding-dino, mm-grounding-dino, owlv2, omdet-turbo or sam3."
        )
    raise InputError(
        f"{config.path} is a {kind} model; detector.library transformers accepts grounding-dino, mm-grounding-dino, "
        "owlv2, omdet-turbo and sam3."
    )
