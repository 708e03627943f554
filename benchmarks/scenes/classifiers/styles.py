"""Train the style classifier on rendered scenes; a few minutes on one core.

python -m benchmarks.scenes.classifiers.styles --export data/scenes/models/style_classifier

A killed run continues with `--resume` from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.scenes.options import classifier_options
from benchmarks.scenes.training.loop import Budget, Resumable, cosine_rate, set_rate
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.style_classifier import PLAIN, StyleClassifier, save
from gazetteer.data.scenes.world import EVAL_SEEDS, TRAIN_SEEDS

BATCH = 64
PEAK_RATE = 4e-3
# Seeds far from those that the text-to-image model reads; any training seeds would do.
_FIRST_SEED = 500_000_000
_CHUNK = 100


def style_pool(model: StyleClassifier, seeds: range, views: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Prepared pictures [N, 3, size, size] and the indices [N] of their styles."""
    pixels, styles = [], []
    for start in range(0, len(seeds), _CHUNK):
        scenes = [render(seed, views=views) for seed in seeds[start : start + _CHUNK]]
        pixels.append(model.prepare(np.stack([scene.image for scene in scenes])))
        styles += [model.labels.index(scene.style or PLAIN) for scene in scenes]
    return torch.cat(pixels), torch.tensor(styles)


@torch.no_grad()
def accuracy(model: StyleClassifier, pixels: Tensor, styles: Tensor) -> float:
    """Share of pictures whose style is recognised."""
    right = [
        (model(part).argmax(dim=1) == truth).float()
        for part, truth in zip(pixels.split(256), styles.split(256), strict=True)
    ]
    return float(torch.cat(right).mean())


def disturb(pixels: Tensor) -> Tensor:
    """Slightly blurred, noisy or shifted copies: generated pictures are less crisp than painted."""
    if torch.rand(()) < 0.3:
        pixels = nn.functional.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    if torch.rand(()) < 0.5:
        pixels = pixels + torch.randn_like(pixels) * 0.06 * torch.rand(())
    gain = 1 + 0.06 * torch.randn(len(pixels), 3, 1, 1)
    return (pixels * gain + 0.04 * torch.randn(len(pixels), 3, 1, 1)).clamp(-1, 1)


def train(
    budget: Budget, pool: int, seed: int, checkpoint: Path, resume: bool = False, every: int = 100,
    views: Sequence[str] = (),
) -> StyleClassifier:  # fmt: skip
    """Train on `pool` scenes, on from `checkpoint` if `resume`; prints the accuracy on unseen ones."""
    torch.manual_seed(seed)
    model = StyleClassifier()
    pixels, styles = style_pool(model, TRAIN_SEEDS[_FIRST_SEED : _FIRST_SEED + pool], views)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    read = {"views": list(views), "seed": seed, "pool": pool}
    run = Resumable(checkpoint, (model,), optimizer, budget, every, about=read)
    run.start(resume)
    while budget.fraction < 1:
        set_rate(optimizer, cosine_rate(PEAK_RATE, budget, warmup=30))
        rows = torch.randint(len(pixels), (BATCH,))
        loss = nn.functional.cross_entropy(model(disturb(pixels[rows])), styles[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.tick()
        if budget.step % 100 == 0:
            print(f"step {budget.step} {budget.seconds:.0f}s loss {loss.item():.4f}", flush=True)
    run.save()  # its steps are those of the weights
    model.eval()
    held_out = style_pool(model, EVAL_SEEDS[10_000:12_000], views)
    print(f"accuracy on unseen scenes: {accuracy(model, *held_out):.4f}", flush=True)
    return model


def main() -> None:
    """Parse the command line, train and export."""
    options = classifier_options(__doc__, "style_classifier", steps=800, pool=4000)
    torch.set_num_threads(1)
    budget = Budget(options.minutes, options.steps)
    checkpoint = options.out / "checkpoint.pt"
    model = train(budget, options.pool, options.seed, checkpoint, options.resume, views=options.views)
    save(model, options.export)


if __name__ == "__main__":
    main()
