"""SAM 3 through transformers: a phrase in, every instance of it out, with box and mask.

Every phrase is a question of its own: what else is asked changes nothing, and a picture is looked at once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.labeling.detect.phrases import ScoredBoxes, above, clean, concept_tokens, require_unlike, survivors
from gazetteer.labeling.detect.protocol import Detection, DetectorConfig
from gazetteer.labeling.detect.vocabulary_check import PHRASE
from gazetteer.labeling.weights.batches import in_batches, pixel_values
from gazetteer.labeling.weights.loading import expect_numbers, fitting, model_type, move, one_by_one, reading

_KEPT = 5_000
"""Embeddings of phrases kept; beyond that they are forgotten and made again."""
_MASKS = 32
"""Masks scaled up together."""
_INSIDE = 0.5
"""Probability above which a pixel belongs to a mask, the model's own choice."""


def load_sam3(config: DetectorConfig) -> Sam3Detector:
    """A detector from a folder or hub id that `from_pretrained` reads; of a video model its picture part is read.

    Raises:
        InputError: no SAM 3 at that path, or the device cannot be used.
    """
    from transformers import AutoTokenizer, Sam3ImageProcessor, Sam3LiteTextModel, Sam3Model

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    lite = model_type("detector", config.path, config.revision) == "sam3_lite_text"
    with reading("detector", config.path):
        kind: Any = Sam3LiteTextModel if lite else Sam3Model
        model = kind.from_pretrained(config.path, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(config.path, trust_remote_code=False, **options)
        images = Sam3ImageProcessor.from_pretrained(config.path, **options)
    return Sam3Detector(move(model, config.device, config.dtype, "detector"), tokenizer, images, config)


class Sam3Detector:
    """A `Detector` whose detections have masks.

    At most the features of `detector.batch_size` pictures, and what `detector.phrases_per_call` phrases of one of them
    come to, are held at once; masks are scaled to the picture only where their box is kept.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, config: DetectorConfig) -> None:
        """model: a Sam3Model on its device."""
        self.model, self.tokenizer, self.images, self.config = model, tokenizer, image_processor, config
        self.fitting = fitting(config, "detector", "detecting", model.device)
        self.limit: int = model.config.text_config.max_position_embeddings
        self._texts: dict[str, tuple[Tensor, Tensor]] = {}

    def detect(self, images: Sequence[NDArray[np.uint8]], concepts: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """See `Detector.detect`."""

        def find(pixels: Tensor, rows: list[int]) -> list[list[Detection]]:
            seen = self._look(pixels)
            return [
                self._find(seen, place, images[row].shape[:2], list(dict.fromkeys(concepts[row])))
                for place, row in enumerate(rows)
            ]

        return in_batches(self.fitting, images, concepts, partial(pixel_values, self.images), find)

    def tokens(self, concept: str) -> tuple[int, ...]:
        """See `Detector.tokens`."""
        return concept_tokens(concept, self.tokenizer, self.limit, PHRASE)

    @torch.inference_mode()
    def _look(self, pixels: Tensor) -> Any:
        """The vision encoder's output of some pictures."""
        return self.model.get_vision_features(pixels.to(self.model.device, self.model.dtype))

    @torch.inference_mode()
    def _find(self, seen: Any, place: int, size: tuple[int, ...], asked: list[str]) -> list[Detection]:
        """Everything asked that is in one picture, size (height, width) px, best first."""
        require_unlike(asked, [self.tokens(concept) for concept in asked])
        scored: list[ScoredBoxes] = []
        masks: list[Tensor] = []
        for first, logits, corners, shapes in self._answers(seen, place, asked):
            queries = logits.shape[1]
            asking = torch.arange(len(logits), device=logits.device).repeat_interleave(queries) + first
            surviving, where = above(
                logits.flatten(), corners.flatten(0, 1), asking, (size[0], size[1]), self.config.box_threshold
            )
            scored.append(surviving)
            masks.append(shapes.flatten(0, 1)[where].float())
            expect_numbers(masks[-1], "detector")
        joined = ScoredBoxes(*(torch.cat(parts).cpu() for parts in zip(*map(_fields, scored), strict=True)))
        best = survivors(joined, self.config.nms_iou)
        cut = _scaled(torch.cat(masks).cpu()[best], (size[0], size[1]))
        scores, boxes, which = (field[best].tolist() for field in _fields(joined))
        rows = zip(scores, boxes, which, cut, strict=True)
        return [Detection(asked[number], score, (b[0], b[1], b[2], b[3]), mask) for score, b, number, mask in rows]

    def _answers(self, seen: Any, place: int, asked: list[str]) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """For some phrases at once: the first's place, scores [n, q], corners [n, q, 4], mask logits [n, q, h, w]."""
        step = 1 if one_by_one(self.config.exact, self.model.device) else self.config.phrases_per_call
        for first in range(0, len(asked), step):
            texts = [self._text(concept) for concept in asked[first : first + step]]
            out = self.model(
                vision_embeds=_repeated(seen, place, len(texts)),
                text_embeds=_Pooled(torch.cat([embedding for embedding, _ in texts])),
                attention_mask=torch.cat([mask for _, mask in texts]),
            )
            # whether the phrase is there at all, times which query shows it
            scores = out.pred_logits.float().sigmoid() * out.presence_logits.float().sigmoid()
            yield first, scores, out.pred_boxes.float(), out.pred_masks

    def _text(self, concept: str) -> tuple[Tensor, Tensor]:
        """The embedding [1, tokens, width] of a phrase and its attention mask [1, tokens]; made alone, and kept."""
        text = clean(concept)
        if text not in self._texts:
            given = self.tokenizer(text, padding="max_length", max_length=self.limit, return_tensors="pt")
            ids, mask = (given[name].to(self.model.device) for name in ("input_ids", "attention_mask"))
            if len(self._texts) >= _KEPT:
                self._texts.clear()
            self._texts[text] = self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output, mask
        return self._texts[text]


class _Pooled:
    """What the model reads of the text encoder's output."""

    def __init__(self, pooler_output: Tensor) -> None:
        self.pooler_output = pooler_output


def _repeated(seen: Any, place: int, times: int) -> Any:
    """The vision encoder's output of one picture, for so many phrases; nothing is copied."""
    names = ("fpn_hidden_states", "fpn_position_encoding")
    levels = {
        name: tuple(level[place : place + 1].expand(times, *level.shape[1:]) for level in getattr(seen, name))
        for name in names
    }
    return type(seen)(**levels)


def _fields(scored: ScoredBoxes) -> tuple[Tensor, Tensor, Tensor]:
    return scored.scores, scored.boxes, scored.concepts


def _scaled(logits: Tensor, size: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """Masks of the picture's size from logits [n, h, w], a few at a time."""
    masks: list[NDArray[np.bool_]] = []
    for part in logits.split(_MASKS) if len(logits) else ():
        inside = F.interpolate(part.sigmoid()[None], size=size, mode="bilinear", align_corners=False)[0] > _INSIDE
        masks += list(inside.numpy())
    return masks
