"""OmDet-Turbo through transformers: concepts are classes of their own, a picture is looked at once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.labeling.detect.phrases import best_pairs, clean, concept_tokens, require_unlike, suppress
from gazetteer.labeling.detect.protocol import Detection, DetectorConfig
from gazetteer.labeling.detect.vocabulary_check import PHRASE
from gazetteer.labeling.weights.batches import in_batches, pixel_values
from gazetteer.labeling.weights.loading import fitting, move, reading

TASK = "Detect {}."
"""The sentence that the model's own processor puts before the classes."""


def load_omdet(config: DetectorConfig) -> OmDetDetector:
    """A detector from a folder or hub id that `from_pretrained` reads.

    Raises:
        InputError: no OmDet-Turbo at that path, or the device cannot be used.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, OmDetTurboForObjectDetection

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("detector", config.path):
        model = OmDetTurboForObjectDetection.from_pretrained(config.path, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(config.path, trust_remote_code=False, **options)
        images = AutoImageProcessor.from_pretrained(config.path, trust_remote_code=False, backend="pil", **options)
    return OmDetDetector(move(model, config.device, config.dtype, "detector"), tokenizer, images, config)


class OmDetDetector:
    """A `Detector`: one call a picture with all its concepts; a box may answer several of them."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, config: DetectorConfig) -> None:
        """model: an OmDetTurboForObjectDetection on its device."""
        self.model, self.tokenizer, self.images, self.config = model, tokenizer, image_processor, config
        self.fitting = fitting(config, "detector", "detecting", model.device)
        self.limit: int = model.config.text_config.max_position_embeddings

    def detect(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """See `Detector.detect`."""

        def find(pixels: Tensor, rows: list[int]) -> list[list[Detection]]:
            asked = [list(dict.fromkeys(concepts[row])) for row in rows]
            return self._call(pixels, [images[row].shape[:2] for row in rows], asked)

        return in_batches(self.fitting, images, concepts, partial(pixel_values, self.images), find)

    def tokens(self, concept: str) -> tuple[int, ...]:
        """See `Detector.tokens`."""
        return concept_tokens(concept, self.tokenizer, self.limit, PHRASE)

    @torch.inference_mode()
    def _call(
        self, pixels: Tensor, sizes: Sequence[tuple[int, ...]], asked: Sequence[list[str]]
    ) -> list[list[Detection]]:
        for own in asked:
            require_unlike(own, [self.tokens(concept) for concept in own])
        device = self.model.device
        classes = self._texts([clean(concept) for own in asked for concept in own])
        tasks = self._texts([self._task(own) for own in asked])
        out = self.model(
            pixel_values=pixels.to(device, self.model.dtype),
            classes_input_ids=classes["input_ids"], classes_attention_mask=classes["attention_mask"],
            tasks_input_ids=tasks["input_ids"], tasks_attention_mask=tasks["attention_mask"],
            classes_structure=torch.tensor([len(own) for own in asked], dtype=torch.long, device=device),
        )  # fmt: skip
        results = []
        answers = out.decoder_class_logits.float().cpu(), out.decoder_coord_logits.float().cpu()
        for logits, boxes, size, own in zip(*answers, sizes, asked, strict=True):
            scored = best_pairs(logits[:, : len(own)], boxes, (size[0], size[1]), self.config.box_threshold)
            surviving = suppress(scored, self.config.nms_iou)
            rows = zip(surviving.scores.tolist(), surviving.boxes.tolist(), surviving.concepts.tolist(), strict=True)
            results.append([Detection(own[c], score, (b[0], b[1], b[2], b[3])) for score, b, c in rows])
        return results

    def _task(self, concepts: list[str]) -> str:
        """The sentence before the classes; one that names them would be longer than the model reads, names none."""
        named = TASK.format(", ".join(map(clean, concepts)))
        return named if len(self.tokenizer(named, verbose=False).input_ids) <= self.limit else TASK.format("objects")

    def _texts(self, texts: list[str]) -> Any:
        """Token ids and attention masks [n, limit]; no text is longer than that."""
        given = self.tokenizer(
            texts, padding="max_length", truncation=False, max_length=self.limit, return_tensors="pt"
        )
        return {name: given[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
