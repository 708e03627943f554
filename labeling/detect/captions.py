"""Asking a detector for groups of concepts that share no caption, and putting what it finds together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.detect.protocol import Detection, Detector


def detect_in_captions(
    detector: Detector, images: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[Sequence[str]]]
) -> list[list[Detection]]:
    """Boxes per picture, best first, ties by the order of the concepts and then by the box.

    Each group of concepts is asked by itself. Boxes are suppressed within one concept only, and a concept is in one
    group; but where a box answers its best phrase alone (`gazetteer.labeling.detect.phrases.best_phrases`), the phrases
    of one group compete for it, and those of different groups do not.

    Args:
        images: uint8 [H, W, 3] each.
        captions: groups of concepts per picture (`gazetteer.labeling.vocabulary.concepts.Vocabulary.captions`).
    """
    pairs = [(row, group) for row, groups in enumerate(captions) for group in groups]
    answers = detector.detect([images[row] for row, _ in pairs], [group for _, group in pairs])
    detections_of: list[list[Detection]] = [[] for _ in images]
    for (row, _), detections in zip(pairs, answers, strict=True):
        detections_of[row] += detections
    for row, groups in enumerate(captions):
        order = {concept: place for place, concept in enumerate(concept for group in groups for concept in group)}
        detections_of[row].sort(key=lambda d, order=order: (-d.score, order[d.concept], d.box))  # type: ignore[misc]
    return detections_of
