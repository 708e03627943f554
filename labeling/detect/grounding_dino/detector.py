"""Grounding DINO through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.phrases import (
    Caption,
    ScoredBoxes,
    best_phrases,
    build_captions,
    concept_tokens,
    suppress,
)
from gazetteer.labeling.detect.protocol import Detection, DetectorConfig
from gazetteer.labeling.weights.batches import check_lists
from gazetteer.labeling.weights.loading import fitting, move, reading


def load_grounding_dino(config: DetectorConfig) -> GroundingDinoDetector:
    """A detector from a folder or hub id that `from_pretrained` reads.

    Raises:
        InputError: no Grounding DINO at that path, or the device cannot be used.
    """
    from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("detector", config.path):
        model = AutoModelForZeroShotObjectDetection.from_pretrained(
            config.path, trust_remote_code=False, use_safetensors=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(config.path, trust_remote_code=False, **options)
        # Pillow scales pictures as the authors do; on tensors they come out up to two grey levels away.
        images = AutoImageProcessor.from_pretrained(config.path, trust_remote_code=False, backend="pil", **options)
    if not tokenizer.is_fast:
        raise InputError(f"The tokenizer of {config.path} gives no character offsets (no tokenizer.json).")
    return GroundingDinoDetector(move(model, config.device, config.dtype, "detector"), tokenizer, images, config)


class GroundingDinoDetector:
    """A `Detector`: every picture is asked its own concepts in one caption, or, if they are too many, one by one."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, config: DetectorConfig) -> None:
        """model: a GroundingDinoForObjectDetection (or its MM variant) on its device."""
        self.model, self.tokenizer, self.images, self.config = model, tokenizer, image_processor, config
        self.device = model.device
        self.fitting = fitting(config, "detector", "detecting", self.device)
        text = model.config.text_config
        self.limit = min(model.config.max_text_len, text.max_position_embeddings)

    def detect(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """See `Detector.detect`."""
        check_lists(images, concepts)
        captions: dict[tuple[str, ...], list[Caption]] = {}
        for asked in map(tuple, concepts):
            if asked not in captions:
                captions[asked] = build_captions(asked, self.tokenizer, self.limit)
        work = [(row, caption) for row, asked in enumerate(concepts) for caption in captions[tuple(asked)]]
        scored_of: list[list[tuple[Caption, ScoredBoxes]]] = [[] for _ in images]

        def pixels(part: slice) -> Any:
            return self._pixels([images[row] for row, _ in work[part]])

        def call(part: slice, given: Any) -> list[tuple[Tensor, Tensor]]:
            return self._call(given, [caption for _, caption in work[part]])

        outputs = chain.from_iterable(self.fitting.prepared(len(work), pixels, call))
        for (row, caption), (logits, boxes) in zip(work, outputs, strict=True):
            size = images[row].shape[0], images[row].shape[1]
            scored = best_phrases(logits, boxes, caption.spans, size, self.config.box_threshold)
            scored_of[row].append((caption, scored))
        return [self._merge(parts, list(asked)) for parts, asked in zip(scored_of, concepts, strict=True)]

    def tokens(self, concept: str) -> tuple[int, ...]:
        """See `Detector.tokens`."""
        return concept_tokens(concept, self.tokenizer, self.limit)

    def _pixels(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """What `_call` reads of pictures, on the CPU."""
        return self.images(images=list(images), return_tensors="pt", input_data_format="channels_last")

    @torch.inference_mode()
    def _call(self, pixels: Any, captions: Sequence[Caption]) -> list[tuple[Tensor, Tensor]]:
        """Logits [queries, tokens] and boxes [queries, 4] of every picture with its own caption."""
        length = max(len(caption.ids) for caption in captions)
        padding = self.tokenizer.pad_token_id
        ids = torch.tensor([[*caption.ids, *[padding] * (length - len(caption.ids))] for caption in captions])
        mask = torch.tensor([[1] * len(c.ids) + [0] * (length - len(c.ids)) for c in captions])
        given = {"pixel_mask": pixels["pixel_mask"].to(self.device)} if "pixel_mask" in pixels else {}
        out = self.model(
            pixel_values=pixels["pixel_values"].to(self.device, self.model.dtype),
            input_ids=ids.to(self.device), attention_mask=mask.to(self.device), **given,
        )  # fmt: skip
        logits, boxes = out.logits.float().cpu(), out.pred_boxes.float().cpu()
        return [(logits[i, :, : len(c.ids)], boxes[i]) for i, c in enumerate(captions)]

    def _merge(self, parts: list[tuple[Caption, ScoredBoxes]], asked: list[str]) -> list[Detection]:
        if not parts:
            return []
        concepts = [torch.tensor([asked.index(c) for c in caption.concepts])[s.concepts] for caption, s in parts]
        joined = ScoredBoxes(
            torch.cat([s.scores for _, s in parts]), torch.cat([s.boxes for _, s in parts]), torch.cat(concepts)
        )
        surviving = suppress(joined, self.config.nms_iou)
        rows = zip(surviving.scores.tolist(), surviving.boxes.tolist(), surviving.concepts.tolist(), strict=True)
        return [Detection(asked[concept], score, (box[0], box[1], box[2], box[3])) for score, box, concept in rows]
