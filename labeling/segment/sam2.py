"""SAM 2, and EdgeTAM of the same interface, through transformers, on pictures: boxes in, masks out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.labeling.segment.precision import placed
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.segment.sam import Pixels, SamSegmenter
from gazetteer.labeling.weights.loading import reading


def load_sam2(config: SegmenterConfig) -> Sam2Segmenter:
    """A segmenter from a folder or hub id that `from_pretrained` reads; of a video model its picture part is read.

    Raises:
        InputError: no SAM 2 at that path, or the device cannot be used.
    """
    from transformers import Sam2ImageProcessor, Sam2Model

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("segmenter", config.path):
        model = Sam2Model.from_pretrained(config.path, use_safetensors=True, **options)
        images = Sam2ImageProcessor.from_pretrained(config.path, **options)
    return Sam2Segmenter(placed(model, model.vision_encoder, config), images, config)


def load_edgetam(config: SegmenterConfig) -> Sam2Segmenter:
    """The same of an EdgeTAM; raises as `load_sam2`."""
    from transformers import EdgeTamModel, Sam2ImageProcessor

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("segmenter", config.path):
        model = EdgeTamModel.from_pretrained(config.path, use_safetensors=True, **options)
        images = Sam2ImageProcessor.from_pretrained(config.path, **options)
    return Sam2Segmenter(placed(model, model.vision_encoder, config), images, config)


class Sam2Segmenter(SamSegmenter):
    """A `Segmenter`: as SAM, but embeddings are of several resolutions, finest first, and the decoder reads all."""

    def _pixels(self, images: Sequence[NDArray[np.uint8]]) -> Pixels:
        inputs = self.images(images=list(images), return_tensors="pt", input_data_format="channels_last")
        pixels: Tensor = inputs["pixel_values"]
        originals = [[int(side) for side in size] for size in inputs["original_sizes"]]
        return pixels, originals, [list(pixels.shape[-2:])] * len(originals)

    def _one(self, embeddings: Any, row: int) -> list[Tensor]:
        return [level[row : row + 1] for level in embeddings]

    def _masks(self, logits: Tensor, original: list[int], resized: list[int]) -> NDArray[np.bool_]:
        full_size = self.images.post_process_masks([logits], [original], mask_threshold=self.config.mask_threshold)
        masks: NDArray[np.bool_] = full_size[0][:, 0].cpu().numpy()
        return masks
