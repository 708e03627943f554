"""Precision, recall and false alarms of a detector on held-out scenes, from raw model outputs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms
from transformers import GroundingDinoForObjectDetection

from benchmarks.scenes.detector.augment import boxes_of
from benchmarks.scenes.detector.data import encode, normalise
from benchmarks.scenes.detector.loss import corners
from benchmarks.scenes.training.scene_cache import SceneCache
from gazetteer.data.scenes.world import CONCEPT_NAMES


@dataclass(frozen=True)
class Found:
    """Predictions of one picture when all words were asked: scores [n], boxes [n, 4] xyxy px, concept index [n]."""

    scores: Tensor
    boxes: Tensor
    concepts: Tensor


@dataclass(frozen=True)
class Quality:
    """Shares over all scenes; `false_alarms` is the share of (picture, absent word) pairs with a detection."""

    precision: float
    recall: float
    false_alarms: float
    per_concept: dict[str, tuple[float, float, int]]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / max(1e-9, self.precision + self.recall)


@torch.no_grad()
def predict(
    model: GroundingDinoForObjectDetection, cache: SceneCache, vocabulary: dict[str, int], rows: range, batch: int = 20
) -> list[Found]:
    """Every query's best word, before thresholds, with all sixteen words asked at once."""
    ids, positions = encode(list(CONCEPT_NAMES), vocabulary)
    columns = torch.tensor([places[0] for places in positions])
    size = cache.images.shape[1]
    results = []
    for start in range(rows.start, rows.stop, batch):
        images = [
            normalise(torch.from_numpy(cache.images[row].copy()).permute(2, 0, 1).float() / 255)
            for row in range(start, min(start + batch, rows.stop))
        ]
        out = model(pixel_values=torch.stack(images), input_ids=torch.tensor([ids] * len(images)))
        scores, concepts = out.logits[..., columns].float().sigmoid().max(-1)
        boxes = corners(out.pred_boxes.float()).clamp(0, 1) * size
        results += [Found(*row) for row in zip(scores, boxes, concepts, strict=True)]
    return results


def decode(outputs: Found, threshold: float, nms_iou: float) -> Found:
    """Keep queries above the threshold that class-wise suppression leaves, best first."""
    keep = outputs.scores > threshold
    scores, boxes, concepts = outputs.scores[keep], outputs.boxes[keep], outputs.concepts[keep]
    order = batched_nms(boxes, scores, concepts, nms_iou)
    return Found(scores[order], boxes[order], concepts[order])


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of every pair of xyxy boxes: [n, 4], [m, 4] -> [n, m]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = (high - low).clip(0).prod(-1)
    area = (first[:, 2:] - first[:, :2]).prod(-1)[:, None] + (second[:, 2:] - second[:, :2]).prod(-1)[None]
    return (overlap / np.maximum(area - overlap, 1e-9)).astype(np.float32)


def count_hits(predicted: NDArray[np.float32], true: NDArray[np.float32], minimum: float = 0.5) -> int:
    """Greedy one-to-one matching, best detection first; boxes [n, 4] sorted by score, [m, 4]."""
    if not len(predicted) or not len(true):
        return 0
    overlap = box_iou(predicted, true)
    hits = 0
    for row in overlap:
        best = int(row.argmax())
        if row[best] >= minimum:
            hits += 1
            overlap[:, best] = -1.0
    return hits


def evaluate(founds: list[Found], cache: SceneCache, rows: range, threshold: float, nms_iou: float) -> Quality:
    """Match detections with the visible boxes of the scenes `rows`, per concept, at IoU 0.5."""
    hits: dict[int, int] = defaultdict(int)
    detected: dict[int, int] = defaultdict(int)
    wanted: dict[int, int] = defaultdict(int)
    alarms = absent = 0
    for row, outputs in zip(rows, founds, strict=True):
        concepts = cache.concepts[row]
        concepts = concepts[concepts >= 0]
        boxes, keep = boxes_of(cache.owners[row], len(concepts))
        decoded = decode(outputs, threshold, nms_iou)
        for concept in range(len(CONCEPT_NAMES)):
            decoded_boxes = decoded.boxes[decoded.concepts == concept].numpy()
            true = boxes[(concepts == concept) & keep]
            hits[concept] += count_hits(decoded_boxes, true)
            detected[concept] += len(decoded_boxes)
            wanted[concept] += len(true)
            if not (concepts == concept).any():
                absent += 1
                alarms += bool(len(decoded_boxes))
    ratio = {
        name: (hits[i] / max(1, detected[i]), hits[i] / max(1, wanted[i]), wanted[i])
        for i, name in enumerate(CONCEPT_NAMES)
    }
    total = sum(hits.values())
    return Quality(
        total / max(1, sum(detected.values())), total / max(1, sum(wanted.values())), alarms / max(1, absent), ratio
    )


def best_threshold(founds: list[Found], cache: SceneCache, rows: range, nms_iou: float = 0.7) -> tuple[float, Quality]:
    """The score threshold with the highest F1 among 0.15, 0.20, ... 0.70."""
    options = [round(0.15 + 0.05 * step, 2) for step in range(12)]
    scored = [(threshold, evaluate(founds, cache, rows, threshold, nms_iou)) for threshold in options]
    return max(scored, key=lambda pair: pair[1].f1)
