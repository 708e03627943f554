"""Loading the configured detector."""

from __future__ import annotations

from gazetteer.labeling.detect.protocol import Detector, DetectorConfig
from gazetteer.labeling.weights.kinds import SEGMENTING, require_kind
from gazetteer.labeling.weights.loading import model_type


def detector_kind(config: DetectorConfig) -> str:
    """What kind of model transformers is to load; InputError where there is none, or one that is no detector."""
    return require_kind("detector", config.path, model_type("detector", config.path, config.revision))


def segments(config: DetectorConfig) -> bool:
    """Whether a detector also gives masks; raises InputError as `detector_kind`."""
    return config.library == "transformers" and detector_kind(config) in SEGMENTING


def load_detector(config: DetectorConfig) -> Detector:
    """Load the configured detector, in evaluation mode on its device.

    Raises:
        InputError: the path holds no such model, the device cannot be used, or the library is missing.
    """
    if config.library == "groundingdino":
        from gazetteer.labeling.detect.grounding_dino.original import load_original_grounding_dino

        return load_original_grounding_dino(config)
    kind = detector_kind(config)
    if kind == "owlv2":
        from gazetteer.labeling.detect.owlv2 import load_owlv2

        return load_owlv2(config)
    if kind in SEGMENTING:
        from gazetteer.labeling.detect.sam3 import load_sam3

        return load_sam3(config)
    if kind == "omdet-turbo":
        from gazetteer.labeling.detect.omdet import load_omdet

        return load_omdet(config)
    from gazetteer.labeling.detect.grounding_dino.detector import load_grounding_dino

    return load_grounding_dino(config)
