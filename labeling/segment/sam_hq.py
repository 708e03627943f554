"""SAM-HQ through transformers: SAM with a second output for finer outlines, from features of several depths."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gazetteer.labeling.segment.precision import placed
from gazetteer.labeling.segment.protocol import Mask, SegmenterConfig
from gazetteer.labeling.segment.sam import SamSegmenter
from gazetteer.labeling.weights.loading import reading


def load_sam_hq(config: SegmenterConfig) -> SamHqSegmenter:
    """A segmenter from a folder or hub id that `from_pretrained` reads.

    Raises:
        InputError: no SAM-HQ at that path, or the device cannot be used.
    """
    from transformers import AutoImageProcessor, SamHQModel

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("segmenter", config.path):
        model = SamHQModel.from_pretrained(config.path, use_safetensors=True, **options)
        images = AutoImageProcessor.from_pretrained(config.path, trust_remote_code=False, backend="pil", **options)
    return SamHqSegmenter(placed(model, model.vision_encoder, config), images, config)


class SamHqSegmenter(SamSegmenter):
    """A `Segmenter`: as SAM, but the decoder also reads what the encoder's blocks without windows give."""

    def _one(self, embeddings: Any, row: int) -> tuple[Tensor, list[Tensor]]:
        last, earlier = embeddings
        return last[row : row + 1], [level[row : row + 1] for level in earlier]

    def _decode(self, embedding: Any, boxes: Tensor, original: list[int], resized: list[int]) -> list[Mask]:
        """Masks of one picture: embedding of `_one`, boxes [n, 4] in px of the model's input."""
        last, earlier = embedding
        out = self.model(
            image_embeddings=last, intermediate_embeddings=earlier, input_boxes=boxes[None], multimask_output=False
        )
        return self._found(out, original, resized)
