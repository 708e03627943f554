"""Draw the sheets of pictures that the documentation shows: seeds 0 to 47 of each, and nobody chooses.

    python -m benchmarks.scenes.text_to_image.sheets                               # of the embedded world
    ... --models build/world/models                                                # of one just trained

One of captions of scenes that no model has seen, in the order of their file; two of every look with every concept.
Where the transformer is there, one of the same captions and seeds by it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.scenes.prompts import prompts_of
from benchmarks.scenes.training.loop import save_sheet
from gazetteer.attribution.evaluation.evaluators import painter
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.scenes.weights import MODELS
from gazetteer.data.scenes.world import CONCEPTS, STYLES, Concept
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
COLUMNS = 8
PICTURES = 48
DRAWN: dict[str | None, str] = {None: "text_to_image", "scenes-dit": "text_to_image_dit"}
"""By preset the model that draws; the second where it is there."""


def prompts_of_looks() -> list[str]:
    """Every look with every concept: a row of eight concepts a look, first of one half of the concepts."""
    halves = CONCEPTS[:COLUMNS], CONCEPTS[COLUMNS:]
    return [style.phrases[0].format(_noun(concept)) for half in halves for style in STYLES for concept in half]


def _noun(concept: Concept) -> str:
    """As captions name it alone."""
    if concept.kind == "thing" or concept.name in ("road", "mountain"):
        return f"the {concept.name}" if concept.name in ("sun", "moon") else f"a {concept.name}"
    return concept.name


def sheets(prompts: Sequence[str], preset: str | None = None) -> dict[str, list[str]]:
    """The prompts of every sheet that a model draws, by its name."""
    if preset:
        return {"scenes_dit_prompts": list(prompts[:PICTURES])}
    looks = prompts_of_looks()
    return {
        "scenes_prompts": list(prompts[:PICTURES]),
        "scenes_looks_1": looks[:PICTURES],
        "scenes_looks_2": looks[PICTURES:],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="another models folder than the embedded one")
    parser.add_argument("--prompts", type=Path, help="one prompt a line (default: those of the models' world)")
    parser.add_argument("--out", type=Path, default=IMAGES, metavar="FOLDER", help="default: docs/images")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    models = options.models.resolve() if options.models else MODELS
    file = prompts_of(options.models, options.prompts) if options.models else options.prompts
    for preset, name in DRAWN.items():
        if preset and not (models / name / "model_index.json").exists():
            continue
        overrides = [f"model.path={models / name}"] if options.models else []
        overrides += [f"prompts.path={file.resolve()}"] if file else []
        config = load_config(preset, overrides)
        paint = painter(load_pipeline(config.model), config.generation)
        for sheet, prompts in sheets(read_prompts(config.prompts), preset).items():
            path = options.out / f"{sheet}.webp"
            save_sheet(np.stack(paint(prompts, range(len(prompts)))), path, columns=COLUMNS)
            print(path, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
