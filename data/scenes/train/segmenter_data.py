"""Training batches of the segmenter: a picture, jittered true boxes, the masks inside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from data.scenes.train.augment import boxes_of, crop_and_flip, smear
from data.scenes.train.detector_data import normalise
from data.scenes.train.scene_cache import SceneCache

JITTER = 0.08
"""Boxes are moved by up to this share of their width or height at every side."""


@dataclass(frozen=True)
class SegmentBatch:
    """pixels float [B, 3, S, S]; boxes float [B, P, 4] xyxy px; masks float [B, P, S/2, S/2], covered shares."""

    pixels: Tensor
    boxes: Tensor
    masks: Tensor


def jitter_boxes(boxes: NDArray[np.float32], size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Boxes [P, 4] with every side moved independently by up to `JITTER` of the box, inside the picture."""
    extent = np.tile(boxes[:, 2:] - boxes[:, :2], (1, 2))
    moved = boxes + extent * generator.uniform(-JITTER, JITTER, boxes.shape).astype(np.float32)
    return moved.clip(0, size).astype(np.float32)


class SegmentBatches:
    """Seeded random batches from a scene cache; `prompts` boxes a picture, drawn with replacement if few."""

    def __init__(self, cache: SceneCache, batch_size: int, prompts: int, seed: int) -> None:
        self.cache, self.batch_size, self.prompts = cache, batch_size, prompts
        self.generator = np.random.default_rng(seed)

    def __call__(self) -> SegmentBatch:
        """The next batch."""
        samples: list[tuple[Tensor, Tensor, Tensor]] = []
        while len(samples) < self.batch_size:
            sample = self._sample(int(self.generator.integers(0, len(self.cache))))
            if sample is not None:
                samples.append(sample)
        pixels, boxes, masks = (torch.stack(parts) for parts in zip(*samples, strict=True))
        return SegmentBatch(pixels, boxes, masks)

    def _sample(self, row: int) -> tuple[Tensor, Tensor, Tensor] | None:
        image = torch.from_numpy(self.cache.images[row].copy()).permute(2, 0, 1).float() / 255
        owners = torch.from_numpy(self.cache.owners[row].copy())
        image, owners = crop_and_flip(image, owners, self.generator)
        boxes, keep = boxes_of(owners.numpy(), int((self.cache.concepts[row] >= 0).sum()))
        visible = np.flatnonzero(keep)
        if not len(visible):
            return None
        chosen = self.generator.choice(visible, self.prompts, replace=len(visible) < self.prompts)
        masks = torch.stack([(owners == int(number) + 1).float() for number in chosen])
        shares = F.avg_pool2d(masks[None], 2)[0]
        moved = jitter_boxes(boxes[chosen], image.shape[-1], self.generator)
        return normalise(smear(image, self.generator)), torch.from_numpy(moved), shares
