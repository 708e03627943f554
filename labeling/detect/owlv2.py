"""OWLv2 through transformers: every concept is a query of its own, so a list of any length is asked at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.labeling.detect.phrases import best_phrases, clean, concept_tokens, require_unlike, suppress
from gazetteer.labeling.detect.protocol import Detection, DetectorConfig
from gazetteer.labeling.detect.vocabulary_check import OWLV2_QUERY
from gazetteer.labeling.weights.batches import in_batches, pixel_values
from gazetteer.labeling.weights.loading import fitting, move, reading

_KEPT = 20_000
"""Query embeddings kept; beyond that they are forgotten and made again."""


def load_owlv2(config: DetectorConfig) -> Owlv2Detector:
    """A detector from a folder or hub id that `from_pretrained` reads.

    Raises:
        InputError: no OWLv2 at that path, or the device cannot be used.
    """
    from transformers import AutoTokenizer, Owlv2ForObjectDetection, Owlv2ImageProcessor

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("detector", config.path):
        model = Owlv2ForObjectDetection.from_pretrained(config.path, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(config.path, trust_remote_code=False, **options)
        images = Owlv2ImageProcessor.from_pretrained(config.path, **options)
    return Owlv2Detector(move(model, config.device, config.dtype, "detector"), tokenizer, images, config)


class Owlv2Detector:
    """A `Detector`: one encoder pass per picture; the embedding of a concept is made once and kept."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, config: DetectorConfig) -> None:
        """model: an Owlv2ForObjectDetection on its device."""
        self.model, self.tokenizer, self.images, self.config = model, tokenizer, image_processor, config
        self.limit: int = model.config.text_config.max_position_embeddings
        self.fitting = fitting(config, "detector", "detecting", model.device)
        self._queries: dict[str, Tensor] = {}

    def detect(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """See `Detector.detect`."""

        def find(pixels: Tensor, rows: list[int]) -> list[list[Detection]]:
            seen = zip(*self._look(pixels), rows, strict=True)
            return [self._best(scores, boxes, images[row].shape, list(concepts[row])) for scores, boxes, row in seen]

        return in_batches(self.fitting, images, concepts, partial(pixel_values, self.images), find)

    @torch.inference_mode()
    def _look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features [n, patches, width] and boxes [n, patches, 4], cxcywh as shares of the padded square."""
        grid = self.model.image_embedder(pixel_values=pixels.to(self.model.device, self.model.dtype))[0]
        features = grid.flatten(1, 2)
        return features, self.model.box_predictor(features, grid).float().cpu()

    @torch.inference_mode()
    def _best(self, features: Tensor, boxes: Tensor, shape: tuple[int, ...], asked: list[str]) -> list[Detection]:
        """The detections of one picture: features [patches, width], boxes [patches, 4], shape (height, width, 3)."""
        unique = list(dict.fromkeys(asked))
        require_unlike(unique, [self.tokens(concept) for concept in unique])
        queries = torch.stack([self._query(concept) for concept in unique])
        logits = self.model.class_predictor(features[None], queries[None])[0][0].float().cpu()
        height, width = shape[:2]
        # pictures are padded to a square on the right and at the bottom
        fractions = boxes * max(height, width) / torch.tensor([width, height, width, height])
        spans = [(place,) for place in range(len(unique))]
        scored = best_phrases(logits, fractions, spans, (height, width), self.config.box_threshold)
        surviving = suppress(scored, self.config.nms_iou)
        rows = zip(surviving.scores.tolist(), surviving.boxes.tolist(), surviving.concepts.tolist(), strict=True)
        return [Detection(unique[concept], score, (box[0], box[1], box[2], box[3])) for score, box, concept in rows]

    def tokens(self, concept: str) -> tuple[int, ...]:
        """See `Detector.tokens`."""
        return concept_tokens(concept, self.tokenizer, self.limit, OWLV2_QUERY)

    def _query(self, concept: str) -> Tensor:
        """The embedding [width] of a concept; each alone, so that it does not depend on what else is asked."""
        text = clean(concept)
        if text not in self._queries:
            tokens = self.tokenizer(
                OWLV2_QUERY.format(text),
                padding="max_length",
                max_length=self.limit,
                truncation=False,
                return_tensors="pt",
            )
            given = {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
            if len(self._queries) >= _KEPT:
                self._queries.clear()
            self._queries[text] = self.model.owlv2.get_text_features(**given).pooler_output[0]
        return self._queries[text]
