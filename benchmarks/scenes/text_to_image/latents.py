"""Render and encode scenes once, ahead of the text-to-image training that reads them.

    python -m benchmarks.scenes.text_to_image.latents --vae build/world/vae --out build/world/latents --count 100000
    ... --first 100000 --workers 2       # other scenes, but for those that losses are measured on

Writes latents.f16 [N, 16, 16, 16] (scaled to unit variance), tokens.i16 [N, 32] and `ready`, the number of rows that
may be read already, so that training can start while the rest is written. The same command goes on where a killed run
stood, and a larger count adds scenes; another encoder, other views or another first scene start anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.scenes.autoencoder.model import encoder_digest
from benchmarks.scenes.autoencoder.pictures import normalise
from benchmarks.scenes.options import add_views
from benchmarks.scenes.text_to_image.tokens import MAX_LENGTH, encode, save_legacy, scenes_tokenizer
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.world import TRAIN_SEEDS

LATENT_SHAPE = (16, 16, 16)
"""Channels, rows and columns of the latents of one picture."""

HELD_OUT = 256
"""The first rows, never trained on: the loss on them is part of the curve."""

_CHUNK = 50


@dataclass
class LatentFiles:
    """Memory-mapped latents and token ids, possibly still growing.

    Attributes:
        about: what a training on them must not change: their autoencoder and their views, as far as they say them.
    """

    folder: Path
    latents: NDArray[np.float16]
    tokens: NDArray[np.int16]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def ready(self) -> int:
        """How many leading rows are complete."""
        path = self.folder / "ready"
        return int(path.read_text()) if path.exists() else 0

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Latents float [B, 16, 16, 16] and token ids int64 [B, MAX_LENGTH]."""
        index = rows.numpy()
        latents = torch.from_numpy(self.latents[index].astype(np.float32))
        return latents, torch.from_numpy(self.tokens[index].astype(np.int64))


def open_files(folder: Path, mode: str = "r", count: int | None = None) -> LatentFiles:
    """Map the files of a folder; `mode="w+"` creates room for `count` rows, "r+" goes on writing."""
    if count is None:
        count = (folder / "tokens.i16").stat().st_size // (2 * MAX_LENGTH)
    latents = np.memmap(folder / "latents.f16", np.float16, mode, shape=(count, *LATENT_SHAPE))
    tokens = np.memmap(folder / "tokens.i16", np.int16, mode, shape=(count, MAX_LENGTH))
    note = folder / "meta.json"
    said = json.loads(note.read_text()) if note.exists() else {}
    return LatentFiles(folder, latents, tokens, {name: said[name] for name in ("vae", "views") if name in said})


def _to_write(out: Path, meta: dict[str, object], count: int) -> LatentFiles:
    """The files of an earlier run of the same meaning, or fresh ones."""
    note = out / "meta.json"
    before = {"first": 0} | json.loads(note.read_text()) if note.exists() else {}
    if before and before | {"count": 0} == meta | {"count": 0}:
        count = max(count, before["count"])
        files = open_files(out, "r+", count)  # a longer file than before is filled with zeros, which are not `ready`
    else:
        (out / "ready").unlink(missing_ok=True)
        files = open_files(out, "w+", count)
    _put(note, json.dumps(meta | {"count": count}))
    return files


def _put(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, path)


class Encoder:
    """Renders scenes and encodes them; every worker has its own."""

    def __init__(self, vae_folder: Path, views: Sequence[str], first: int, device: str) -> None:
        self.vae: Any = AutoencoderKL.from_pretrained(vae_folder, torch_dtype=torch.float32).eval().to(device)
        self.views, self.first, self.device = views, first, device

    @torch.no_grad()
    def __call__(self, rows: range) -> tuple[NDArray[np.float16], list[str]]:
        """Scaled latents [B, 16, 16, 16] and captions of some rows."""
        seeds = [TRAIN_SEEDS[row if row < HELD_OUT else self.first + row] for row in rows]
        scenes = [render(seed, views=self.views) for seed in seeds]
        pixels = torch.tensor(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).to(self.device)
        with torch.autocast(self.device, torch.bfloat16):
            latents = self.vae.encode(normalise(pixels)).latent_dist.mean.float()
        scaled: NDArray[np.float16] = (latents * self.vae.config.scaling_factor).half().cpu().numpy()
        return scaled, [scene.caption for scene in scenes]


_encoder: Encoder | None = None
"""That of this process, where several work side by side."""


def _begin(*arguments: Any) -> None:
    global _encoder
    torch.set_num_threads(1)
    _encoder = Encoder(*arguments)


def _encode(rows: range) -> tuple[NDArray[np.float16], list[str]]:
    assert _encoder is not None  # made by `_begin`
    return _encoder(rows)


def write(
    vae_folder: Path, out: Path, count: int, views: Sequence[str], device: str = "cpu", first: int = 0, workers: int = 1
) -> None:
    """Fill the files with `count` scenes of the training seeds, seen from `views`.

    Row i holds seed `first` + i, but for the first `HELD_OUT` rows, which are the same scenes whatever `first` is.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = _to_write(
        out, {"vae": encoder_digest(vae_folder), "count": count, "views": list(views), "first": first}, count
    )
    tokenizer = scenes_tokenizer(views=views)
    save_legacy(tokenizer, out / "tokenizer")
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(files.ready, count, _CHUNK)]
    with ExitStack() as stack:
        if workers == 1:
            encoded: Iterable[tuple[NDArray[np.float16], list[str]]] = map(
                Encoder(vae_folder, views, first, device), chunks
            )
        else:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(workers, _begin, (vae_folder, views, first, device)))
            encoded = pool.imap(_encode, chunks)
        for rows, (latents, captions) in zip(chunks, encoded, strict=True):
            files.latents[rows.start : rows.stop] = latents
            files.tokens[rows.start : rows.stop] = encode(tokenizer, captions)
            _put(out / "ready", str(rows.stop))
            if rows.stop % (40 * _CHUNK) == 0:
                print(f"{rows.stop} of {count} scenes", flush=True)


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the training seed that the rows count from")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--device", default="cpu")
    add_views(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    write(options.vae, options.out, options.count, options.views, options.device, options.first, options.workers)


if __name__ == "__main__":
    main()
