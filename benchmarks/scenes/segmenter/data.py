"""Training batches of the segmenter: a picture, jittered true boxes, the masks inside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.scenes.detector.augment import boxes_of, crop_and_flip, smear
from benchmarks.scenes.detector.backbone import cell_fractions
from benchmarks.scenes.detector.data import normalise
from benchmarks.scenes.training.scene_cache import SceneCache

JITTER = 0.08
"""Boxes are moved by up to this share of their width or height at every side."""


@dataclass(frozen=True)
class SegmentBatch:
    """One batch of P prompts a picture.

    pixels: float [B, 3, S, S]. boxes: float [B, P, 4] xyxy px. masks: float [B, P, S/2, S/2], covered shares.
    cells: float [B, 18, S/2, S/2], shares of the 17 classes (0 is nothing), then 1 where instances meet.
    """

    pixels: Tensor
    boxes: Tensor
    masks: Tensor
    cells: Tensor


def jitter_boxes(boxes: NDArray[np.float32], size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Boxes [P, 4] with every side moved independently by up to `JITTER` of the box, inside the picture."""
    extent = np.tile(boxes[:, 2:] - boxes[:, :2], (1, 2))
    moved = boxes + extent * generator.uniform(-JITTER, JITTER, boxes.shape).astype(np.float32)
    return moved.clip(0, size).astype(np.float32)


def dense_cells(owners: Tensor, concepts: Tensor) -> Tensor:
    """What covers every cell of two by two pixels, and whether instances meet there: float [18, S/2, S/2]."""
    size = owners.shape[-1] // 2
    classes = cell_fractions(owners, concepts, size)
    blocks = owners.view(size, 2, size, 2)
    meet = blocks.amax((1, 3)) != blocks.amin((1, 3))
    return torch.cat([classes, meet[None].float()])


class SegmentBatches:
    """Seeded random batches from a scene cache; `prompts` boxes a picture, drawn with replacement if few."""

    def __init__(self, cache: SceneCache, batch_size: int, prompts: int, seed: int) -> None:
        self.cache, self.batch_size, self.prompts = cache, batch_size, prompts
        self.generator = np.random.default_rng(seed)

    def __call__(self) -> SegmentBatch:
        """The next batch."""
        samples: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        while len(samples) < self.batch_size:
            sample = self._sample(int(self.generator.integers(0, len(self.cache))))
            if sample is not None:
                samples.append(sample)
        return SegmentBatch(*(torch.stack(parts) for parts in zip(*samples, strict=True)))

    def _sample(self, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        image = torch.from_numpy(self.cache.images[row].copy()).permute(2, 0, 1).float() / 255
        owners = torch.from_numpy(self.cache.owners[row].copy())
        image, owners = crop_and_flip(image, owners, self.generator)
        boxes, keep = boxes_of(owners.numpy(), int((self.cache.concepts[row] >= 0).sum()))
        visible = np.flatnonzero(keep)
        if not len(visible):
            return None
        chosen = self.generator.choice(visible, self.prompts, replace=len(visible) < self.prompts)
        masks = torch.stack([(owners == int(number) + 1).float() for number in chosen])
        fractions = F.avg_pool2d(masks[None], 2)[0]
        moved = jitter_boxes(boxes[chosen], image.shape[-1], self.generator)
        cells = dense_cells(owners, torch.from_numpy(self.cache.concepts[row]))
        return normalise(smear(image, self.generator)), torch.from_numpy(moved), fractions, cells
