"""What is painted for a case, and what a detector and a classifier find in it; the intact model paints once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.evaluation.cases import Case
from gazetteer.attribution.evaluation.distances import Features
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import network
from gazetteer.diffusion.generate import Generator
from gazetteer.labeling.detect.protocol import Detection, Detector
from gazetteer.labeling.interventions.evaluation.trials import Classifier

Images = list[NDArray[np.uint8]]
Detect = Callable[[Images], list[dict[str, float]]]
"""Pictures uint8 [H, W, 3] -> per picture, of each concept found, the fraction 0..1 of the picture it covers."""
Classify = Callable[[Images], list[Collection[str]]]
"""Pictures -> per picture the concepts it shows, by another kind of network than the detector."""
Paint = Callable[[Sequence[str], Sequence[int]], Images]
"""(prompts, seeds) -> pictures of the pipeline as it stands."""


@dataclass(frozen=True)
class Observation:
    """A picture and what evaluators say of it.

    Attributes:
        image: uint8 [H, W, 3].
        found: the concepts that the detector found, with the fraction 0..1 of the picture that each covers.
        maps: the picture's feature maps [channels, h, w] by level; None without a network.
        read: what the classifier reads in it; None without one.
        readable: what the classifier can read at all; None: everything.
    """

    image: NDArray[np.uint8]
    found: Mapping[str, float]
    maps: Sequence[NDArray[np.float32]] | None = None
    read: Collection[str] | None = None
    readable: Collection[str] | None = None

    def reads(self, concept: str) -> bool | None:
        """Whether the classifier reads a concept here; None without one, and of a concept that it does not know."""
        known = self.read is not None and (self.readable is None or concept in self.readable)
        return concept in (self.read or ()) if known else None


@dataclass
class Evaluators:
    """What paints pictures and what reads them.

    Attributes:
        paint: draws with the model as it stands.
        detect: finds concepts and how much of the picture they cover.
        classify: a classifier beside the detector; None: there is none.
        features: what perceptual distances, FID and KID are measured in; None leaves them out.
        readable: what the classifier can read; None: everything.
    """

    paint: Paint
    detect: Detect
    classify: Classify | None = None
    features: Features | None = None
    readable: Collection[str] | None = None
    _intact: dict[Case, Observation] = field(default_factory=dict, repr=False)

    def observe(self, cases: Sequence[Case]) -> list[Observation]:
        """Pictures of the model as it stands, and what is found in them."""
        if not cases:
            return []
        images = self.paint([case.prompt for case in cases], [case.seed for case in cases])
        areas = self.detect(images)
        maps = self.features(images) if self.features else [None] * len(images)
        read = self.classify(images) if self.classify else [None] * len(images)
        return [Observation(*observed, self.readable) for observed in zip(images, areas, maps, read, strict=True)]

    def intact(self, cases: Sequence[Case]) -> list[Observation]:
        """The same of the intact model, which has to be in place when a case is asked for the first time."""
        new = [case for case in dict.fromkeys(cases) if case not in self._intact]
        self._intact.update(zip(new, self.observe(new), strict=True))
        return [self._intact[case] for case in cases]


def painter(pipe: Any, generation: GenerationConfig) -> Paint:
    """Paint with the pipeline as it stands, each picture from its own seed."""
    blocks = dataclasses.replace(generation, blocks=_any_block(pipe, generation), t=(1.0,))
    generator = Generator(pipe, blocks)

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        images: Images = []
        size = 1 if generation.exact else 8
        for start in range(0, len(prompts), size):
            part = slice(start, start + size)
            painted = generator.sample(prompts[part], seeds[part], lambda *_: None)
            images += list(painted if painted is not None else [])
        return images

    return paint


def detecting(detector: Detector, concepts: Sequence[str], styles: Classifier | None = None) -> Detect:
    """The detector, asked for all concepts of every picture; and the most probable style by a classifier of styles."""

    def detect(images: Images) -> list[dict[str, float]]:
        asked = [concepts] * len(images)
        areas = [_areas(boxes, image) for boxes, image in zip(detector.detect(images, asked), images, strict=True)]
        if styles is not None and images:
            for areas_of, best in zip(areas, styles.probabilities(np.stack(images)).argmax(axis=1), strict=True):
                areas_of[styles.labels[best]] = 1.0
        return areas

    return detect


def classifying(classifier: Classifier) -> Classify:
    """What a classifier of many labels, each with a probability of its own, takes to be there: those of 0.5 or more."""

    def read(images: Images) -> list[Collection[str]]:
        if not images:
            return []
        return [
            frozenset(label for label, p in zip(classifier.labels, row, strict=True) if p >= 0.5)
            for row in classifier.probabilities(np.stack(images))
        ]

    return read


def _areas(boxes: Sequence[Detection], image: NDArray[np.uint8]) -> dict[str, float]:
    """Per concept found the fraction of the picture that its boxes cover together."""
    covered: dict[str, NDArray[np.bool_]] = {}
    for picture_boxes in boxes:
        mask = covered.setdefault(picture_boxes.concept, np.zeros(image.shape[:2], dtype=bool))
        x0, y0, x1, y1 = (round(v) for v in picture_boxes.box)
        mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    return {concept: float(mask.mean()) for concept, mask in covered.items()}


def _any_block(pipe: Any, generation: GenerationConfig) -> tuple[str, ...]:
    """Blocks the generator may listen to; nothing is done with them here, but another model may lack the configured."""
    names = {name for name, _ in network(pipe).named_modules()}
    return tuple(b for b in generation.blocks if b in names) or ("mid_block",)
