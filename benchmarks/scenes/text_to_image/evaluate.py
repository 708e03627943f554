"""Generated pictures against their prompts and beside rendered scenes: what is found, counted, read; how far apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scenes.text_to_image.counts import counts_right
from gazetteer.attribution.evaluation.distances import kernel_distance, pooled
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS, STYLES

SCENES_FROM = 500_000
"""The first of the evaluation seeds whose scenes stand beside generated pictures; nothing else is measured on them."""
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Judged:
    """Generated pictures and what the two witnesses see in them.

    Attributes:
        images: uint8 [N, H, W, 3].
        prompts: of each.
        numbers: how many of each concept the detector finds in each, asked for all of them.
        read: the concepts that the classifier reads in each.
    """

    images: np.ndarray
    prompts: list[str]
    numbers: list[Counter[str]]
    read: list[set[str]]


def judged(config: Any, pictures: int, models: str | None = None) -> Judged:
    """Pictures of the configuration's model, of the last prompts of its list: the labelling job starts at its head."""
    from gazetteer.attribution.evaluation.evaluators import painter
    from gazetteer.diffusion.load import load_pipeline
    from gazetteer.labeling.detect.load import load_detector

    prompts = read_prompts(config.prompts)[-pictures:]
    images = np.stack(painter(load_pipeline(config.model), config.generation)(prompts, range(len(prompts))))
    detected = load_detector(config.detector).detect(list(images), [CONCEPT_NAMES] * len(images))
    numbers = [Counter(detection.concept for detection in detections) for detections in detected]
    return Judged(images, prompts, numbers, read_concepts(images, models))


def read_concepts(images: np.ndarray, models: str | None = None) -> list[set[str]]:
    """What the concept classifier reads in pictures uint8 [N, H, W, 3]."""
    from gazetteer.data.scenes.concept_classifier import DEFAULT_FOLDER, load

    return load(Path(models) / "concept_classifier" if models else DEFAULT_FOLDER).shown(images)


def picture_quality(config: Any, made: Judged, models: str | None = None) -> dict[str, Any]:
    """Generated pictures against their prompts: named concepts the two witnesses find, styles the classifier reads.

    `objects_found`: by the detector; `objects_found_by_classifier`: by the concept classifier. `styles_right`: over
    prompts that name a style, and prompts that name none (read as plain).
    `counts_right`: over things a prompt asks a number of ("a dog", "two dogs"), as many as it asks for.
    """
    from gazetteer.data.scenes.style_classifier import DEFAULT_FOLDER, load
    from gazetteer.labeling.vocabulary.concepts import Vocabulary

    vocabulary = Vocabulary(config.vocabulary)
    named = [vocabulary.mentioned(prompt) for prompt in made.prompts]
    styles = load(Path(models) / "style_classifier" if models else DEFAULT_FOLDER).classify(made.images)
    wanted = [next((s.name for s in STYLES if s.name in prompt), "plain") for prompt in made.prompts]
    by_detector, by_classifier = _asked(named, made.numbers), _asked(named, made.read)
    right = _grouped(zip(wanted, (w == s for w, s in zip(wanted, styles, strict=True)), strict=True))
    counts = counts_right(made.prompts, made.numbers)
    return {
        "counts_right": sum(hits for hits, _ in counts.values()) / max(1, sum(total for _, total in counts.values())),
        "counts_right_by_concept": {c: round(hits / total, 4) for c, (hits, total) in sorted(counts.items())},
        "objects_found": _share(by_detector),
        "objects_found_by_classifier": _share(by_classifier),
        "styles_right": _share(right),
        "found_by_concept": _shares(by_detector),
        "found_by_classifier_by_concept": _shares(by_classifier),
        "right_by_style": _shares(right),
        "pictures": len(made.images),
    }


def _asked(named: Sequence[Iterable[str]], shown: Sequence[Collection[str]]) -> dict[str, list[bool]]:
    """By concept whether it is shown by each of the pictures that were asked for it."""
    pairs = zip(named, shown, strict=True)
    return _grouped((word, word in present) for words, present in pairs for word in words)


def _grouped(pairs: Iterable[tuple[str, bool]]) -> dict[str, list[bool]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for name, value in pairs:
        groups[name].append(value)
    return groups


def _share(groups: Mapping[str, Sequence[bool]]) -> float:
    return float(np.mean([hit for hits in groups.values() for hit in hits]))


def _shares(groups: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    return {name: round(float(np.mean(hits)), 4) for name, hits in sorted(groups.items())}


def likeness(config: Any, images: np.ndarray, views: Sequence[str]) -> dict[str, list[float]]:
    """KID of generated pictures beside rendered scenes, and of further scenes beside the same, as the floor.

    In the last level of the detector's own backbone, not Inception's: numbers of other papers do not compare.

    Returns:
        ``kid`` and ``kid_of_scenes``: value, and the low and high end of a 95 % interval over scenes.
    """
    from gazetteer.labeling.detect.detector_features import backbone_features
    from gazetteer.labeling.detect.load import load_detector

    features = backbone_features(load_detector(config.detector))
    count = len(images)
    scenes = [render(EVAL_SEEDS[SCENES_FROM + i], views=views).image for i in range(2 * count)]
    rendered, further, made = (pooled(features(part)) for part in (scenes[:count], scenes[count:], list(images)))
    return {
        "kid": kernel_distance(rendered, made, resamples=RESAMPLES),
        "kid_of_scenes": kernel_distance(rendered, further, resamples=RESAMPLES),
    }
