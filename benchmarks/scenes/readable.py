"""How well the places of things can be read off a text-to-image model, before any autoencoder is trained on it.

    python -m benchmarks.scenes.readable                                  # the shipped world
    python -m benchmarks.scenes.readable --models build/world/models --t 0.5 0.0 --json

Rendered scenes that no model was trained on are noised to each t and passed through in one call each. From what every
block of the denoiser adds to a cell (its update), ridge regression foretells how much of the cell each concept covers
(`labeling.layout.evaluation.baselines.fit_probe`); thresholds are chosen on the scenes it was fitted on, and IoU is
measured in pixels on the others: a mean over the pictures that show a concept, then over the concepts that any shows.
It compares blocks, and a model in training with itself. It foretells no labels, which are judged over all pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.scenes.options import add_views
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.core.terminal import print_table
from gazetteer.data.scenes.render import Scene, render
from gazetteer.data.scenes.weights import MODELS, WORLD, world_views
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.diffusion.noised import noised_updates
from gazetteer.labeling.evidence.pooling import Grid, cell_areas, pool_masks
from gazetteer.labeling.layout.evaluation.baselines import fit_probe
from gazetteer.labeling.layout.metrics import Truth, fit_thresholds, pair_ious

FIRST = 800_000_000
"""Offset into EVAL_SEEDS, away from the scenes that other measurements use."""
FITTED = 0.7
"""Share of the scenes that the probe and its thresholds are fitted on."""
BATCH, FEWEST = 16, 10

Updates = dict[tuple[str, float], tuple[NDArray[np.float32], Grid]]
"""By block and t float32 [N, cells, d], and the grid of the cells."""


def readable(
    models: Path = MODELS,
    ts: Sequence[float] = (0.5,),
    scenes: int = 400,
    views: Sequence[str] | None = None,
    device: str = "cpu",
) -> dict[str, dict[str, dict[str, float]]]:
    """IoU of the probe by block, by t (two decimals) and by concept, the mean of all beside them as ``mean``.

    Args:
        models: a folder with ``text_to_image``.
        ts: from 1 (noise) to 0.
        scenes: at least FEWEST, of which 7 in 10 are fitted on.
        views: of the scenes; None: those that `world.json` beside the models says.
    Raises:
        InputError: too few scenes, a t named twice or out of range, no model, or nobody says the views of models that
            do not ship.
    """
    if scenes < FEWEST:
        raise InputError(f"At least {FEWEST} scenes are needed, not {scenes}.")
    if len({f"{t:.2f}" for t in ts}) < len(ts):
        raise InputError(f"One t is named twice in {', '.join(f'{t:.2f}' for t in ts)}.")
    if views is None and models.resolve() != MODELS.resolve() and not (models / WORLD).exists():
        raise InputError(
            f"{models} has no {WORLD}, which says the views that it was trained on; name them with --views."
        )
    views = world_views(models) if views is None else views
    drawn = [render(EVAL_SEEDS[FIRST + number], views=views) for number in range(scenes)]
    results: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    truths: dict[Grid, Truth] = {}
    for (block, t), (updates, grid) in sorted(updates_of(models / "text_to_image", drawn, ts, device).items()):
        if grid not in truths:
            truths[grid] = truth_of(drawn, grid)
        results[block][f"{t:.2f}"] = probed(updates, truths[grid])
    return dict(results)


def probed(updates: NDArray[np.float32], truth: Truth) -> dict[str, float]:
    """IoU by concept, and their ``mean``, of a probe fitted on the first pictures and read on the others."""
    images = np.arange(len(updates))
    fitted, rest = np.split(images, [int(FITTED * len(images))])
    probe = fit_probe(updates[fitted], truth.take(fitted))
    thresholds = fit_thresholds(probe(updates[fitted]), truth.take(fitted))
    ious = pair_ious(probe(updates[rest]), truth.take(rest), thresholds)
    shown = {name: values[~np.isnan(values)] for name, values in zip(CONCEPT_NAMES, ious.T, strict=True)}
    means = {name: float(values.mean()) for name, values in shown.items() if len(values)}
    return {name: round(value, 4) for name, value in means.items()} | {
        "mean": round(float(np.mean(list(means.values()))), 4)
    }


def truth_of(scenes: Sequence[Scene], grid: Grid) -> Truth:
    """The exact masks of scenes; every pair of picture and concept that the picture shows is wanted."""
    size: Grid = scenes[0].image.shape[:2]
    pixels = np.zeros((len(scenes), len(CONCEPT_NAMES), grid[0] * grid[1]), np.int32)
    for number, scene in enumerate(scenes):
        for instance in scene.instances:
            cells = pool_masks(instance.mask[None], [grid])[grid].reshape(-1)
            pixels[number, CONCEPT_NAMES.index(instance.concept)] += cells.astype(np.int32)
    shown = np.asarray(pixels.any(axis=2), np.bool_)
    return Truth(pixels, cell_areas(size, grid).astype(np.float64), shown, np.ones_like(shown))


def updates_of(pipeline: Path, scenes: Sequence[Scene], ts: Sequence[float], device: str = "cpu") -> Updates:
    """What every block that can be listened to adds to every cell of noised scenes, with their captions."""
    model = ModelConfig(path=str(pipeline), device=device)
    names = tuple(block.block for block in blocks_of(model))
    config = GenerationConfig(steps=20, blocks=names, branches=("cond",), t=tuple(ts), exact=False)
    generator = Generator(load_pipeline(model), config)
    heard: dict[tuple[str, float], list[NDArray[np.float32]]] = defaultdict(list)
    grids: dict[tuple[str, float], Grid] = {}

    def on_site(site: Site, values: Tensor, height: int, width: int) -> None:
        heard[site.block, site.t].append(values.float().reshape(-1, height * width, values.shape[-1]).cpu().numpy())
        grids[site.block, site.t] = (height, width)

    for start in range(0, len(scenes), BATCH):
        batch = scenes[start : start + BATCH]
        images, captions = [scene.image for scene in batch], [scene.caption for scene in batch]
        noised_updates(generator, images, captions, [scene.seed for scene in batch], on_site)
    return {key: (np.concatenate(parts), grids[key]) for key, parts in heard.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, with ``--json`` one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, metavar="FOLDER")
    parser.add_argument("--t", type=float, nargs="+", default=[0.5])
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--device", default="cpu")
    add_views(parser, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    try:
        results = readable(options.models, options.t, options.scenes, options.views, options.device)
    except InputError as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps(results))
        return 0
    rows: list[list[Any]] = [
        [block, t, *(values.get(name, float("nan")) for name in ("mean", *CONCEPT_NAMES))]
        for block, by_t in results.items()
        for t, values in by_t.items()
    ]
    print_table({"block": "", "t": "", **dict.fromkeys(("mean", *CONCEPT_NAMES), ".2f")}, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
