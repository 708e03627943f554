"""OWLv2 through transformers: every concept is a query of its own, so a list of any length is asked at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.diffusion.memory import enough_memory
from gazetteer.labeling.detect.phrases import best_phrases, clean, concept_tokens, require_unlike, suppress
from gazetteer.labeling.detect.protocol import Detection, DetectorConfig, batches
from gazetteer.labeling.detect.vocabulary_check import OWLV2_QUERY
from gazetteer.labeling.weights.loading import SMALLER, move, one_by_one, reading

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
        self._queries: dict[str, Tensor] = {}

    def detect(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """See `Detector.detect`."""
        results: list[list[Detection]] = [[] for _ in images]
        size = 1 if one_by_one(self.config.exact, self.model.device) else self.config.batch_size
        for rows in batches(images, concepts, size):
            with enough_memory("detecting", "detector.batch_size", len(rows), SMALLER.format("detector")):
                features, boxes = self._look([images[row] for row in rows])
                for i, row in enumerate(rows):
                    results[row] = self._best(features[i], boxes[i], images[row].shape, list(concepts[row]))
        return results

    @torch.inference_mode()
    def _look(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
        """Features [n, patches, width] and boxes [n, patches, 4], cxcywh as shares of the padded square."""
        inputs = self.images(images=list(images), return_tensors="pt", input_data_format="channels_last")
        pixels = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        grid = self.model.image_embedder(pixel_values=pixels)[0]
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
