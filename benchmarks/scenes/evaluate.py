"""Measure the embedded models on scenes that none was trained on: `python -m benchmarks.scenes.evaluate`.

Prompts are captions of such scenes; `benchmarks.scenes.prompts` leaves those out that are training captions too.

A program beside the training scripts: it drives the project's own detector, segmenter and generator code, and
nothing imports it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.scenes.autoencoder.evaluate import EMBEDDED, autoencoder_quality
from benchmarks.scenes.classifiers.concepts import fractions_right, softened, truth
from benchmarks.scenes.detector.evaluate import count_hits
from benchmarks.scenes.model_card import TRANSFORMER, model_card
from benchmarks.scenes.options import add_views
from benchmarks.scenes.prompts import prompts_of
from benchmarks.scenes.quadrants import quadrants
from benchmarks.scenes.text_to_image.evaluate import (
    Judged,
    judged,
    likeness,
    picture_quality,
    read_concepts,
)
from gazetteer.data.scenes.render import Scene, render
from gazetteer.data.scenes.weights import MODELS, read_world
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS, TRAIN_SEEDS
from gazetteer.jobs.config.schema import load_config

SMALL_AREA = 300
"""Instances below so many of the 128 x 128 pixels count as small."""

THIN_SIDE = 10
"""Instances whose box is narrower or lower than so many pixels count as thin."""


QUADRANT_LAYOUTS = 20_000
"""Layouts of training scenes that say where things stand."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the measurements, with ``--json`` as one object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=400, help="rendered scenes for detector and segmenter")
    parser.add_argument("--pictures", type=int, default=400, help="generated pictures for the text-to-image model")
    parser.add_argument("--models", default=None, help="another models folder than the embedded one")
    parser.add_argument("--prompts", type=Path, help="one prompt a line (default: those of the models' world)")
    add_views(parser, default=None)
    parser.add_argument("--card", type=Path, help="also write the model card to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args(argv)
    world = (arguments.views, arguments.prompts)
    results = evaluate(arguments.scenes, arguments.pictures, arguments.models, *world)
    for part, values in results.items():
        print(part)
        for name, value in values.items():
            print(f"  {name:<18}{value if not isinstance(value, float) else round(value, 4)}")
    if arguments.card:
        arguments.card.write_text(model_card(results), encoding="utf-8")
    if arguments.json:
        print(json.dumps(results))
    return 0


def evaluate(
    scenes: int,
    pictures: int,
    models: str | None = None,
    views: Sequence[str] | None = None,
    prompt_file: Path | None = None,
) -> dict[str, Any]:
    """Quality of detector, segmenter, autoencoder, concept classifier and text-to-image model; shares in [0, 1].

    `views` and `prompt_file` say which world the models are for; by default what lies beside them says both.
    ``world`` repeats what it says of them. A transformer that stayed from a world of other views is left out.

    Raises:
        InputError: nothing says the prompts of models of other views than the embedded ones.
    """
    from gazetteer.labeling.detect.load import load_detector

    world = read_world(Path(models) if models else MODELS)
    views = world["views"] if views is None else views
    prompt_file = prompts_of(Path(models), prompt_file) if models else prompt_file
    config = _config(None, models, prompt_file)
    rendered = [render(EVAL_SEEDS[i], views=views) for i in range(scenes)]
    vae = Path(models) / "text_to_image" / "vae" if models else EMBEDDED
    made = judged(config, pictures, models)
    results = {
        "detector": detector_quality(config, rendered),
        "segmenter": segmenter_quality(config, rendered),
        "autoencoder": autoencoder_quality(load_detector(config.detector), rendered, vae),
        "concept_classifier": classifier_quality(rendered, made, vae, models),
        "text_to_image": picture_quality(config, made, models) | likeness(config, made.images, views),
        "world": {**world, "views": list(views)},
    }
    results["text_to_image"]["kappa"] = results["concept_classifier"]["kappa"]
    results["by_concept"] = by_concept(results)
    results["quadrants"] = quadrants(TRAIN_SEEDS[:QUADRANT_LAYOUTS], views)
    transformer = (Path(models) if models else MODELS) / TRANSFORMER
    if (transformer / "model_index.json").exists() and TRANSFORMER not in world.get("others", {}):
        config = _config("scenes-dit", models, prompt_file)
        made = judged(config, pictures, models)
        results[TRANSFORMER] = picture_quality(config, made, models) | likeness(config, made.images, views)
    return results


def _config(name: str | None, models: str | None, prompt_file: Path | None) -> Any:
    """The shipped configuration or a preset, of other models and prompts."""
    folders = {"model": TRANSFORMER if name else "text_to_image", "detector": "detector", "segmenter": "segmenter"}
    overrides = [f"{key}.path={models}/{folder}" for key, folder in folders.items()] if models else []
    return load_config(name, overrides + ([f"prompts.path={prompt_file.resolve()}"] if prompt_file else []))


def by_concept(results: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """What was measured of each concept, gathered from the parts of `results`."""
    columns = {
        "detector_precision": results["detector"]["precision_by_concept"],
        "detector_recall": results["detector"]["recall_by_concept"],
        "mask_iou": results["segmenter"]["mean_iou_by_concept"],
        "found": results["text_to_image"]["found_by_concept"],
        "found_by_classifier": results["text_to_image"]["found_by_classifier_by_concept"],
        "counts_right": results["text_to_image"]["counts_right_by_concept"],
        "kappa": results["concept_classifier"]["kappa_by_concept"],
    }
    return {concept: {name: column.get(concept) for name, column in columns.items()} for concept in CONCEPT_NAMES}


def detector_quality(config: Any, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Precision and recall at IoU 0.5 (greedy, one to one, per concept) with all words asked of every scene.

    `false_alarms`: share of (scene, absent word) pairs with a detection.
    """
    from gazetteer.labeling.detect.load import load_detector

    detections_of = load_detector(config.detector).detect([s.image for s in scenes], [CONCEPT_NAMES] * len(scenes))
    hits: dict[str, int] = defaultdict(int)
    detected: dict[str, int] = defaultdict(int)
    wanted: dict[str, int] = defaultdict(int)
    alarms = absent = 0
    for scene, detections in zip(scenes, detections_of, strict=True):
        for concept in CONCEPT_NAMES:
            own = sorted((d for d in detections if d.concept == concept), key=lambda d: -d.score)
            true = [instance.box for instance in scene.instances if instance.concept == concept]
            boxes = np.array([d.box for d in own], dtype=np.float32).reshape(-1, 4)
            hits[concept] += count_hits(boxes, np.array(true, dtype=np.float32).reshape(-1, 4))
            detected[concept] += len(own)
            wanted[concept] += len(true)
            absent += not true
            alarms += not true and bool(own)
    return {
        "precision": sum(hits.values()) / max(1, sum(detected.values())),
        "recall": sum(hits.values()) / max(1, sum(wanted.values())),
        "false_alarms": alarms / max(1, absent),
        "recall_by_concept": {c: round(hits[c] / max(1, wanted[c]), 4) for c in CONCEPT_NAMES},
        "precision_by_concept": {c: round(hits[c] / max(1, detected[c]), 4) for c in CONCEPT_NAMES},
        "scenes": len(scenes),
    }


def segmenter_quality(config: Any, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Mean IoU of the masks made from true boxes, over all instances, and over small and thin ones apart."""
    from gazetteer.labeling.segment.load import load_segmenter

    segmenter = load_segmenter(config.segmenter)
    assert segmenter is not None
    made = segmenter.segment(
        [s.image for s in scenes], [[tuple(instance.box) for instance in s.instances] for s in scenes]
    )
    every: list[float] = []
    small: list[float] = []
    thin: list[float] = []
    by_concept: dict[str, list[float]] = defaultdict(list)
    for scene, masks in zip(scenes, made, strict=True):
        for instance, mask in zip(scene.instances, masks, strict=True):
            iou = float((instance.mask & mask.mask).sum() / max(1, (instance.mask | mask.mask).sum()))
            every.append(iou)
            by_concept[instance.concept].append(iou)
            if instance.mask.sum() < SMALL_AREA:
                small.append(iou)
            if min(instance.box[2] - instance.box[0], instance.box[3] - instance.box[1]) < THIN_SIDE:
                thin.append(iou)
    return {
        "mean_iou": float(np.mean(every)),
        "small_mean_iou": float(np.mean(small)) if small else None,
        "thin_mean_iou": float(np.mean(thin)) if thin else None,
        "instances": len(every),
        "small": len(small),
        "thin": len(thin),
        "mean_iou_by_concept": {c: round(float(np.mean(v)), 4) for c, v in sorted(by_concept.items())},
    }


def classifier_quality(scenes: Sequence[Scene], made: Judged, vae: Path, models: str | None = None) -> dict[str, Any]:
    """Which concepts are shown: against exact masks, and beside the words the detector finds in generated pictures.

    Means over the concepts; `soft` is after a pass through the autoencoder, `agreement` the share of pictures in which
    both say the same of a concept.
    """
    true = np.stack([truth(scene)[0] for scene in scenes])
    painted = np.stack([scene.image for scene in scenes])
    soft = softened(torch.tensor(painted).permute(0, 3, 1, 2), folder=vae).permute(0, 2, 3, 1).numpy()
    precision, recall = fractions_right(_table(read_concepts(painted, models)), true)
    soft_precision, soft_recall = fractions_right(_table(read_concepts(soft, models)), true)
    ours, other = _table(made.read), _table(made.numbers)
    agreement = (ours == other).mean(axis=0)
    kappas = [kappa(ours[:, i], other[:, i]) for i in range(len(CONCEPT_NAMES))]
    return {
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "soft_precision": float(soft_precision.mean()),
        "soft_recall": float(soft_recall.mean()),
        "agreement": float(agreement.mean()),
        "kappa": float(np.mean([value for value in kappas if value is not None])),
        "precision_by_concept": _by_concept(precision),
        "recall_by_concept": _by_concept(recall),
        "agreement_by_concept": _by_concept(agreement),
        "kappa_by_concept": dict(zip(CONCEPT_NAMES, kappas, strict=True)),
        "scenes": len(scenes),
        "pictures": len(made.images),
    }


def _table(shown: Sequence[Collection[str]]) -> np.ndarray:
    return np.array([[concept in words for concept in CONCEPT_NAMES] for words in shown])


def _by_concept(values: np.ndarray) -> dict[str, float]:
    return {concept: round(float(value), 4) for concept, value in zip(CONCEPT_NAMES, values, strict=True)}


def kappa(ours: np.ndarray, other: np.ndarray) -> float | None:
    """Agreement of two lists of yes and no beyond chance (Cohen 1960), None where both always say the same word."""
    chance = ours.mean() * other.mean() + (1 - ours.mean()) * (1 - other.mean())
    return round(float(((ours == other).mean() - chance) / (1 - chance)), 4) if chance < 1 else None


if __name__ == "__main__":
    sys.exit(main())
