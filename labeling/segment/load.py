"""Loading the configured segmenter."""

from __future__ import annotations

from gazetteer.labeling.segment.protocol import Segmenter, SegmenterConfig
from gazetteer.labeling.weights.kinds import require_kind
from gazetteer.labeling.weights.loading import model_type


def segmenter_kind(config: SegmenterConfig) -> str:
    """What kind of model transformers is to load; InputError where there is none, or one that is no segmenter."""
    return require_kind("segmenter", config.path, model_type("segmenter", config.path, config.revision))


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
    kind = segmenter_kind(config)
    if kind == "sam_hq":
        from gazetteer.labeling.segment.sam_hq import load_sam_hq

        return load_sam_hq(config)
    if kind in ("edgetam", "edgetam_video"):
        from gazetteer.labeling.segment.sam2 import load_edgetam

        return load_edgetam(config)
    if kind in ("sam2", "sam2_video"):
        from gazetteer.labeling.segment.sam2 import load_sam2

        return load_sam2(config)
    from gazetteer.labeling.segment.sam import load_sam

    return load_sam(config)
