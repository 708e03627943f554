"""SAM through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.labeling.segment.precision import placed
from gazetteer.labeling.segment.protocol import Box, Mask, SegmenterConfig
from gazetteer.labeling.weights.batches import in_batches
from gazetteer.labeling.weights.loading import expect_numbers, fitting, reading


def load_sam(config: SegmenterConfig) -> SamSegmenter:
    """A segmenter from a folder or hub id that `from_pretrained` reads.

    Raises:
        InputError: no SAM at that path, or the device cannot be used.
    """
    from transformers import AutoImageProcessor, SamModel

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("segmenter", config.path):
        model = SamModel.from_pretrained(config.path, use_safetensors=True, **options)
        # Pillow scales pictures as the authors do; on tensors, scaled-down ones come out a grey level away.
        images = AutoImageProcessor.from_pretrained(config.path, trust_remote_code=False, backend="pil", **options)
    return SamSegmenter(placed(model, model.vision_encoder, config), images, config)


Pixels = tuple[Any, list[list[int]], list[list[int]]]
"""Of some pictures: what the encoder reads, and their (height, width) as given and as scaled."""


class SamSegmenter:
    """A `Segmenter`: one encoder pass per picture, all its boxes through the mask decoder together."""

    def __init__(self, model: Any, image_processor: Any, config: SegmenterConfig) -> None:
        """model: a SamModel on its device; image_processor: its SamImageProcessor."""
        self.model, self.images, self.config = model, image_processor, config
        self.fitting = fitting(config, "segmenter", "segmenting", model.device)

    def segment(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        """See `Segmenter.segment`."""

        def find(given: Pixels, rows: list[int]) -> list[list[Mask]]:
            return self._call(given, [boxes[row] for row in rows])

        return in_batches(self.fitting, images, boxes, self._pixels, find)

    @torch.inference_mode()
    def _call(self, given: Pixels, boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        pixels, originals, resized = given
        embeddings = self._embed(pixels)
        results = []
        for row, own in enumerate(boxes):
            scaled = scale_boxes(own, originals[row], resized[row]).to(self.model.device)
            masks: list[Mask] = []
            for part in scaled.split(self.config.boxes_per_call):
                masks += self._decode(self._one(embeddings, row), part, originals[row], resized[row])
            results.append(masks)
        return results

    def _pixels(self, images: Sequence[NDArray[np.uint8]]) -> Pixels:
        """What the encoder reads of pictures, on the CPU."""
        inputs = self.images(images=list(images), return_tensors="pt", input_data_format="channels_last")
        return inputs["pixel_values"], inputs["original_sizes"].tolist(), inputs["reshaped_input_sizes"].tolist()

    def _embed(self, pixels: Any) -> Any:
        """Embeddings [n, C, h, w]."""
        return self.model.get_image_embeddings(pixels.to(self.model.device))

    def _one(self, embeddings: Any, row: int) -> Any:
        """What `_decode` reads of one picture."""
        return embeddings[row : row + 1]

    def _decode(self, embedding: Any, boxes: Tensor, original: list[int], resized: list[int]) -> list[Mask]:
        """Masks of one picture: embedding [1, C, h, w], boxes [n, 4] in px of the model's input."""
        out = self.model(image_embeddings=embedding, input_boxes=boxes[None], multimask_output=False)
        return self._found(out, original, resized)

    def _found(self, out: Any, original: list[int], resized: list[int]) -> list[Mask]:
        """The masks in the model's output for one picture."""
        logits = out.pred_masks.float()[0]  # [n, 1, low, low]; scaled up where it is, then fetched
        expect_numbers(logits, "segmenter")
        masks = self._masks(logits, original, resized)
        # double before rounding: a float32 of four decimals would print with eight
        scores = [round(score, 4) for score in out.iou_scores.double()[0, :, 0].tolist()]
        return [Mask(np.ascontiguousarray(mask), score) for mask, score in zip(masks, scores, strict=True)]

    def _masks(self, logits: Tensor, original: list[int], resized: list[int]) -> NDArray[np.bool_]:
        """Masks [n, height, width] of the original picture, from the decoder's logits [n, 1, low, low]."""
        full_size = self.images.post_process_masks(
            [logits], [original], [resized], mask_threshold=self.config.mask_threshold
        )
        masks: NDArray[np.bool_] = full_size[0][:, 0].cpu().numpy()
        return masks


def scale_boxes(boxes: Sequence[Box], original: Sequence[int], resized: Sequence[int]) -> Tensor:
    """Boxes xyxy in px of a picture of `original` (height, width) to px of `resized`; float [n, 4]."""
    vertical, horizontal = resized[0] / original[0], resized[1] / original[1]
    factors = torch.tensor([horizontal, vertical, horizontal, vertical], dtype=torch.float64)
    return (torch.tensor([list(box) for box in boxes], dtype=torch.float64) * factors).float()
