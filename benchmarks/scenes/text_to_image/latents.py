"""Render and encode scenes once, ahead of the text-to-image training that reads them.

    python -m benchmarks.scenes.text_to_image.latents --vae build/train/vae --out build/train/latents

Writes latents.f16 [N, 12, 16, 16] (scaled to unit variance), things.u8 [N, 16, 16] (share of a cell that
things cover, 0 to 255), tokens.i16 [N, 32] and `ready`, the number of rows that may be read already, so that
training can start while the rest is written.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.scenes.text_to_image.tokens import MAX_LENGTH, encode, save_legacy, scenes_tokenizer
from benchmarks.scenes.text_to_image.vae import normalise
from gazetteer.data.scenes.render import Scene, render
from gazetteer.data.scenes.world import CONCEPTS, PICTURE_SIZE, TRAIN_SEEDS

LATENT_SHAPE = (12, 16, 16)
_CHUNK = 50
_THINGS = {concept.name for concept in CONCEPTS if concept.kind == "thing"}


@dataclass
class LatentFiles:
    """Memory-mapped latents, cover by things and token ids, possibly still growing."""

    folder: Path
    latents: NDArray[np.float16]
    things: NDArray[np.uint8]
    tokens: NDArray[np.int16]

    @property
    def ready(self) -> int:
        """How many leading rows are complete."""
        path = self.folder / "ready"
        return int(path.read_text()) if path.exists() else 0

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [B, 12, 16, 16], cover by things [B, 16, 16] (0 to 1) and token ids int64 [B, MAX_LENGTH]."""
        index = rows.numpy()
        latents = torch.from_numpy(self.latents[index].astype(np.float32))
        things = torch.from_numpy(self.things[index].astype(np.float32) / 255)
        return latents, things, torch.from_numpy(self.tokens[index].astype(np.int64))


def open_files(folder: Path, mode: str = "r", count: int | None = None) -> LatentFiles:
    """Map the files of a folder; `mode="w+"` creates room for `count` rows."""
    if count is None:
        count = (folder / "tokens.i16").stat().st_size // (2 * MAX_LENGTH)
    latents = np.memmap(folder / "latents.f16", np.float16, mode, shape=(count, *LATENT_SHAPE))
    things = np.memmap(folder / "things.u8", np.uint8, mode, shape=(count, *LATENT_SHAPE[1:]))
    tokens = np.memmap(folder / "tokens.i16", np.int16, mode, shape=(count, MAX_LENGTH))
    return LatentFiles(folder, latents, things, tokens)


def cover(scene: Scene) -> NDArray[np.uint8]:
    """Share of every latent cell that things cover, [16, 16], 0 to 255."""
    masks = [one.mask for one in scene.instances if one.concept in _THINGS]
    union = np.any(masks, axis=0) if masks else np.zeros((PICTURE_SIZE, PICTURE_SIZE), np.bool_)
    side = PICTURE_SIZE // LATENT_SHAPE[1]
    shares = union.reshape(LATENT_SHAPE[1], side, LATENT_SHAPE[2], side).mean(axis=(1, 3))
    return (shares * 255).round().astype(np.uint8)


@torch.no_grad()
def write(vae_folder: Path, out: Path, count: int) -> None:
    """Fill the files with the scenes of the first `count` training seeds."""
    out.mkdir(parents=True, exist_ok=True)
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    tokenizer = scenes_tokenizer()
    save_legacy(tokenizer, out / "tokenizer")
    files = open_files(out, "w+", count)
    for start in range(0, count, _CHUNK):
        scenes = [render(seed) for seed in TRAIN_SEEDS[start : min(start + _CHUNK, count)]]
        pixels = torch.tensor(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(normalise(pixels)).latent_dist.mean.float()
        end = start + len(scenes)
        files.latents[start:end] = (latents * vae.config.scaling_factor).half().numpy()
        files.things[start:end] = [cover(scene) for scene in scenes]
        files.tokens[start:end] = encode(tokenizer, [scene.caption for scene in scenes])
        partial = out / "ready.partial"
        partial.write_text(str(end))
        os.replace(partial, out / "ready")


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=30000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    write(options.vae, options.out, options.count)


if __name__ == "__main__":
    main()
