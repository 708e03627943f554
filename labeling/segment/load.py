"""Loading the configured segmenter."""

from __future__ import annotations

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.segment.protocol import Segmenter, SegmenterConfig
from gazetteer.labeling.weights.loading import model_type


def load_segmenter(config: SegmenterConfig) -> Segmenter | None:
    """Load the configured segmenter, in evaluation mode on its device; None where no path is configured.

    Raises:
        InputError: the path holds no such model, the device cannot be used, or the library is missing.
    """
    if not config.path:
        return None
    if config.library == "segment_anything":
        from gazetteer.labeling.segment.segment_anything_original import load_original_sam

        return load_original_sam(config)
    kind = model_type("segmenter", config.path, config.revision)
    if kind == "sam_hq":
        from gazetteer.labeling.segment.sam_hq import load_sam_hq

        return load_sam_hq(config)
    if kind in ("edgetam", "edgetam_video"):
        from gazetteer.labeling.segment.sam2 import load_edgetam

        return load_edgetam(config)
    if kind in ("sam2", "sam2_video"):
        from gazetteer.labeling.segment.sam2 import load_sam2

        return load_sam2(config)
    if kind == "sam":
        from gazetteer.labeling.segment.sam import load_sam

        return load_sam(config)
    raise InputError(
        f"{config.path} is a {kind} model; segmenter.library transformers accepts sam, sam2, sam_hq and edgetam."
    )
