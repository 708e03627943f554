"""Train the concept classifier on rendered scenes and on soft copies of them; about ten minutes on one core.

python -m benchmarks.scenes.classifiers.concepts --export data/scenes/models/concept_classifier

Generated pictures, which it is to judge, are less crisp than painted ones: half of the pool has passed through the
autoencoder, with latents disturbed as a denoiser may leave them. A killed run continues with `--resume` from its last
checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.scenes.classifiers.styles import disturb
from benchmarks.scenes.options import classifier_options
from benchmarks.scenes.training.loop import Budget, Resumable, cosine_rate, set_rate
from gazetteer.data.core.digests import digest_path
from gazetteer.data.scenes.concept_classifier import CELL, ConceptClassifier, load, pooled, prepare, save
from gazetteer.data.scenes.render import Scene, render
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS, PICTURE_SIZE, TRAIN_SEEDS

VAE = Path(__file__).resolve().parents[3] / "data" / "scenes" / "models" / "text_to_image" / "vae"
MIN_VISIBLE = 40
"""A concept is shown where this many of its pixels are visible, about 6 x 6.

The smallest whole thing, a crescent moon, shows a hundred; what shows fewer than 40 is a sliver behind something else,
which nobody could name.
"""

BATCH = 32
PEAK_RATE = 4e-3
_UNKNOWN = 2
# Seeds far from those that the other models read; any training seeds would do.
_FIRST_SEED = 600_000_000
_CHUNK = 8
# A square belongs to a concept where this share of it is covered; less, but not nothing, is not judged.
_COVERED = 0.2


class Pool(NamedTuple):
    """Pictures and what they show, as 0 (absent), 1 (shown) or 2 (too little to say).

    pixels: uint8 [N, 3, 128, 128]. shown: uint8 [N, 16]. cells: uint8 [N, 16, 16, 16], the same of each square of
    8 x 8 pixels.
    """

    pixels: Tensor
    shown: Tensor
    cells: Tensor


def truth(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a scene shows, [16], and its squares show, [16, 16, 16]; coded as in `Pool`, in the order of CONCEPT_NAMES.

    A concept that is in the plan of the scene but hardly visible is neither shown nor absent.
    """
    side = PICTURE_SIZE // CELL
    pixels = np.zeros((len(CONCEPT_NAMES), PICTURE_SIZE, PICTURE_SIZE), np.bool_)
    for instance in scene.instances:
        pixels[CONCEPT_NAMES.index(instance.concept)] |= instance.mask
    fractions = pixels.reshape(-1, side, CELL, side, CELL).mean(axis=(2, 4))
    cells = np.where(fractions >= _COVERED, 1, np.where(fractions > 0, _UNKNOWN, 0))
    hidden = np.array([_UNKNOWN if concept in scene.planned else 0 for concept in CONCEPT_NAMES])
    shown = np.where(pixels.sum(axis=(1, 2)) >= MIN_VISIBLE, 1, hidden)
    return shown.astype(np.uint8), cells.astype(np.uint8)


@torch.no_grad()
def softened(pixels: Tensor, generator: torch.Generator | None = None, folder: Path = VAE) -> Tensor:
    """Copies of uint8 pictures [N, 3, H, W] through the autoencoder in `folder`, by default the embedded one.

    With a generator the latents are smoothed and get noise, each picture its own share of both.
    """
    vae = AutoencoderKL.from_pretrained(folder).eval()
    copies = []
    for part in pixels.split(_CHUNK):
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(prepare(part)).latent_dist.mean.float()
            if generator:
                fractions = torch.rand(2, len(part), 1, 1, 1, generator=generator)
                smooth = nn.functional.avg_pool2d(latents, 3, stride=1, padding=1, count_include_pad=False)
                noise = torch.randn(latents.shape, generator=generator) / vae.config.scaling_factor
                latents = torch.lerp(latents, smooth, 0.9 * fractions[0]) + 0.4 * fractions[1] * noise
            decoded = vae.decode(latents).sample.float()
        copies.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(copies)


def scene_pool(seeds: Sequence[int], views: Sequence[str] = ()) -> Pool:
    """Render the scenes of `seeds`, seen from `views`."""
    scenes = [render(seed, views=views) for seed in seeds]
    pixels = torch.tensor(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    shown, cells = zip(*map(truth, scenes), strict=True)
    return Pool(pixels, torch.tensor(np.stack(shown)), torch.tensor(np.stack(cells)))


def training_pool(count: int, seed: int, views: Sequence[str] = (), folder: Path = VAE) -> Pool:
    """`count` scenes as painted, then the same through the autoencoder with disturbed latents."""
    painted = scene_pool(TRAIN_SEEDS[_FIRST_SEED : _FIRST_SEED + count], views)
    soft = softened(painted.pixels, torch.Generator().manual_seed(seed), folder)
    return Pool(torch.cat([painted.pixels, soft]), painted.shown.repeat(2, 1), painted.cells.repeat(2, 1, 1, 1))


def loss_of(model: ConceptClassifier, pool: Pool, rows: Tensor) -> Tensor:
    """Cross-entropy of pictures and of their squares; half of the pictures are mirrored."""
    pixels, cells = disturb(prepare(pool.pixels[rows])), pool.cells[rows]
    if torch.rand(()) < 0.5:
        pixels, cells = pixels.flip(3), cells.flip(3)
    scores = model.cells(pixels)
    return known_entropy(pooled(scores), pool.shown[rows]) + known_entropy(scores, cells)


def known_entropy(scores: Tensor, truth: Tensor) -> Tensor:
    """Mean cross-entropy of scores before the sigmoid, over what the truth, coded as in `Pool`, knows."""
    known = truth != _UNKNOWN
    return nn.functional.binary_cross_entropy_with_logits(scores[known], truth[known].float())


def fractions_right(answers: NDArray[np.bool_], truth: NDArray[np.uint8]) -> tuple[NDArray[np.float64], ...]:
    """Precision and recall per concept, [16] each, of yes or no [N, 16] against what `truth` says, [N, 16]."""
    hits = (answers & (truth == 1)).sum(axis=0)
    claimed = (answers & (truth != _UNKNOWN)).sum(axis=0)
    return hits / np.maximum(1, claimed), hits / np.maximum(1, (truth == 1).sum(axis=0))


def train(
    budget: Budget, pool: int, seed: int, checkpoint: Path, resume: bool = False, every: int = 100,
    views: Sequence[str] = (), folder: Path = VAE,
) -> ConceptClassifier:  # fmt: skip
    """Train on `pool` scenes and their soft copies, on from `checkpoint` if `resume`."""
    torch.manual_seed(seed)
    model = ConceptClassifier()
    data = training_pool(pool, seed, views, folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    read = {"views": list(views), "seed": seed, "pool": pool, "vae": digest_path(str(folder))}
    run = Resumable(checkpoint, (model,), optimizer, budget, every, about=read)
    run.start(resume)
    while budget.fraction < 1:
        set_rate(optimizer, cosine_rate(PEAK_RATE, budget, warmup=50))
        loss = loss_of(model, data, torch.randint(len(data.pixels), (BATCH,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.tick()
        if budget.step % 50 == 0:
            print(f"step {budget.step} {budget.seconds:.0f}s loss {loss.item():.4f}", flush=True)
    run.save()  # its steps are those of the weights
    return model.eval()


def report(model: ConceptClassifier, views: Sequence[str], folder: Path) -> None:
    """Print precision and recall on unseen scenes, as painted and through the autoencoder."""
    unseen = scene_pool(EVAL_SEEDS[20_000:20_300], views)
    soft = softened(unseen.pixels, folder=folder)
    for name, pixels in (("painted", unseen.pixels), ("through the autoencoder", soft)):
        answers = np.array([[c in s for c in CONCEPT_NAMES] for s in model.shown(pixels.permute(0, 2, 3, 1).numpy())])
        precision, recall = fractions_right(answers, unseen.shown.numpy())
        print(f"{name}: mean precision {precision.mean():.4f}, mean recall {recall.mean():.4f}", flush=True)


def main() -> None:
    """Parse the command line, train and export."""
    options = classifier_options(__doc__, "concept_classifier", steps=2000, pool=5000, autoencoder=VAE)
    torch.set_num_threads(1)
    budget = Budget(options.minutes, options.steps)
    checkpoint, world = options.out / "checkpoint.pt", (options.views, options.vae)
    model = train(budget, options.pool, options.seed, checkpoint, options.resume, 100, *world)
    save(model, options.export)
    report(load(options.export), *world)


if __name__ == "__main__":
    main()
