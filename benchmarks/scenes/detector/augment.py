"""Geometry and smear: what training pictures go through before a detector or segmenter sees them.

The detector is used on pictures that a small diffusion model draws through an autoencoder, so
they are slightly smeared and noisy; training pictures are smeared in a similar way.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MIN_PIXELS = 12
"""Instances with fewer visible pixels are left out of the targets."""


def crop_and_flip(
    image: Tensor, owners: Tensor, generator: np.random.Generator, crop_fraction: float = 0.4, smallest: float = 0.7
) -> tuple[Tensor, Tensor]:
    """Flip half of the time; with probability `crop_fraction` zoom into a window of the picture.

    image: float [3, S, S]; owners: uint8 [S, S] (see `SceneCache`). Returns the same shapes.
    """
    size = image.shape[-1]
    if generator.random() < 0.5:
        image, owners = image.flip(-1), owners.flip(-1)
    if generator.random() >= crop_fraction:
        return image, owners
    height, width = (round(float(size * generator.uniform(smallest, 1.0))) for _ in range(2))
    top, left = int(generator.integers(0, size - height + 1)), int(generator.integers(0, size - width + 1))
    image = image[:, top : top + height, left : left + width]
    owners = owners[top : top + height, left : left + width]
    image = F.interpolate(image[None], (size, size), mode="bilinear", align_corners=False)[0]
    owners = F.interpolate(owners[None, None].float(), (size, size), mode="nearest-exact")[0, 0].to(torch.uint8)
    return image, owners


def smear(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Mild changes of colour, sharpness and noise; image float [3, S, S] in 0..1."""
    if generator.random() < 0.7:
        gain = torch.from_numpy(generator.uniform(0.88, 1.12, (3, 1, 1)).astype(np.float32))
        shift = torch.from_numpy(generator.uniform(-0.05, 0.05, (3, 1, 1)).astype(np.float32))
        image = image * gain * float(generator.uniform(0.9, 1.1)) + shift
    kind = generator.random()
    size = image.shape[-1]
    if kind < 0.25:  # as through a coarse latent grid
        small = int(size * generator.uniform(0.45, 0.8))
        image = F.interpolate(image[None], (small, small), mode="bilinear", antialias=True)
        image = F.interpolate(image, (size, size), mode="bicubic")[0]
    elif kind < 0.5:
        fraction = float(generator.uniform(0.2, 1.0))
        image = image + fraction * (F.avg_pool2d(image[None], 3, 1, 1, count_include_pad=False)[0] - image)
    if generator.random() < 0.4:
        noise = generator.standard_normal(image.shape, dtype=np.float32) * float(generator.uniform(0.005, 0.04))
        image = image + torch.from_numpy(noise)
    return image.clamp(0, 1)


def boxes_of(owners: NDArray[np.uint8], count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Tight boxes of the visible pixels of instances 0..count-1.

    owners: [H, W]. Returns boxes float [count, 4] xyxy in pixels (x1, y1 one past the last pixel) and
    keep bool [count], False where fewer than `MIN_PIXELS` are visible.
    """
    boxes = np.zeros((count, 4), np.float32)
    keep = np.zeros(count, bool)
    for number in range(count):
        mask = owners == number + 1
        if int(mask.sum()) < MIN_PIXELS:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes[number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        keep[number] = True
    return boxes, keep
