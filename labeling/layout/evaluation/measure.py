"""What methods of layout prediction reach on pictures, gathered part by part, with intervals over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.layout.evaluation.methods import ScoreMaps
from gazetteer.labeling.layout.metrics import (
    Truth,
    average_precision,
    concept_means,
    macro_mean,
    pair_ious,
    pair_pointing,
)
from gazetteer.labeling.quality.intervals import sample_weights

Floats = NDArray[np.float64]

MIN_PAIRS = 5
"""Held-out pairs a concept needs to count in the means; where none has so many, all that have one count."""


class PairValues:
    """IoU, pointing and presence of every method, picture and concept."""

    def __init__(self) -> None:
        self._ious: dict[str, list[Floats]] = {}
        self._pointing: dict[str, list[Floats]] = {}
        self._peaks: dict[str, list[NDArray[np.float32]]] = {}
        self._truths: list[Truth] = []

    def add_truth(self, truth: Truth) -> None:
        """The next pictures. Of their masks only what presence needs is kept: as if each had one cell, with a pixel
        where the concept is shown."""
        shown = truth.present[:, :, None].astype(np.int32)
        self._truths.append(Truth(shown, truth.areas[:1], truth.wanted, truth.asked))

    def add(self, method: str, maps: ScoreMaps, truth: Truth) -> None:
        """What a method says of these pictures; truth: on the grid of `maps`."""
        self._ious.setdefault(method, []).append(pair_ious(maps.where, truth, maps.thresholds))
        self._pointing.setdefault(method, []).append(pair_pointing(maps.where, truth))
        self._peaks.setdefault(method, []).append(maps.whether)

    def summary(
        self, concepts: Sequence[str], resamples: int, prompts: NDArray[np.int64] | None = None
    ) -> dict[str, Any]:
        """``miou``, ``pointing``, ``presence_ap``, ``margin`` (of gazetteer) by method, and ``by_concept``: each
        [mean, low, high]; pictures with equal `prompts` are drawn together, and have no low and high alone."""
        columns = ("pixels", "wanted", "asked")
        pixels, wanted, asked = (np.concatenate([getattr(t, name) for t in self._truths]) for name in columns)
        counted = wanted.sum(axis=0) >= MIN_PAIRS
        if not counted.any():
            counted[:] = True
        ious, pointing = (
            {name: np.where(counted, np.concatenate(values), np.nan) for name, values in by_method.items()}
            for by_method in (self._ious, self._pointing)
        )
        truth = Truth(pixels, self._truths[0].areas, wanted, asked)
        weights = sample_weights(len(wanted), resamples, groups=prompts)
        presence = {
            name: list(average_precision(np.concatenate(peaks), truth, weights, prompts))
            for name, peaks in self._peaks.items()
        }
        others = {name: ious["gazetteer"] - values for name, values in ious.items() if name != "gazetteer"}
        return {
            "miou": {name: list(macro_mean(values, weights, prompts)) for name, values in ious.items()},
            "pointing": {name: list(macro_mean(values, weights, prompts)) for name, values in pointing.items()},
            "presence_ap": presence,
            "by_concept": {name: _by_concept(values, weights, prompts, concepts) for name, values in ious.items()},
            "margin": {name: list(macro_mean(values, weights, prompts)) for name, values in others.items()},
        }


def _by_concept(
    ious: Floats, weights: Floats, prompts: NDArray[np.int64] | None, concepts: Sequence[str]
) -> dict[str, list[float]]:
    """The mIoU of every concept that has a pair."""
    means = zip(concepts, concept_means(ious, weights, prompts), strict=True)
    return {concept: [round(v, 4) for v in interval] for concept, interval in means if not np.isnan(interval[0])}
