"""Pictures for the autoencoder: a pool of rendered scenes that never ends, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from gazetteer.data.scenes.render import render


def normalise(pictures: Tensor) -> Tensor:
    """uint8 pictures to floats in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def picture_pool(seeds: Sequence[int], views: Sequence[str] = ()) -> Tensor:
    """Render the scenes of `seeds` as uint8 [N, 3, 128, 128]."""
    return torch.stack([torch.tensor(render(seed, views=views).image).permute(2, 0, 1) for seed in seeds])


class PictureStream:
    """A pool of rendered scenes in which every step replaces the oldest ones by new ones.

    At step s the pool holds the scenes [fresh s, fresh s + size) of `seeds`, so a resumed run has the same pool.
    """

    def __init__(self, seeds: range, views: Sequence[str], size: int, fresh: int, step: int = 0) -> None:
        self.seeds, self.views, self.fresh = seeds, views, fresh
        self.next = fresh * step
        self.pool = torch.empty(size, 3, 128, 128, dtype=torch.uint8)
        self._fill(size)

    def _fill(self, count: int) -> None:
        for number in range(self.next, self.next + count):
            scene = render(self.seeds[number % len(self.seeds)], views=self.views)
            self.pool[number % len(self.pool)] = torch.tensor(scene.image).permute(2, 0, 1)
        self.next += count

    def crops(self, count: int, side: int) -> Tensor:
        """Random crops uint8 [count, 3, side, side]; small ones buy more steps per minute."""
        rows = torch.randint(len(self.pool), (count,)).tolist()
        places = torch.randint(self.pool.shape[-1] - side + 1, (count, 2)).tolist()
        parts = [self.pool[i, :, y : y + side, x : x + side] for i, (y, x) in zip(rows, places, strict=True)]
        return torch.stack(parts)

    def advance(self) -> None:
        """Replace the oldest scenes by new ones."""
        self._fill(self.fresh)


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, pictures: Tensor, batch: int = 16) -> Tensor:
    """uint8 pictures [N, 3, H, W] through the autoencoder, without noise."""
    device = next(vae.parameters()).device
    outputs = []
    for part in pictures.split(batch):
        pixels = normalise(part.to(device))
        with torch.autocast(device.type, torch.bfloat16):
            output = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.float()
        outputs.append(((output.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu())
    return torch.cat(outputs)


def absolute_error(made: Tensor, pictures: Tensor) -> float:
    """Mean absolute error of uint8 pictures, in steps of 255."""
    return float((made.float() - pictures.float()).abs().mean())
