"""How much more each feature fires where a concept is: the weights of its features in an edit, from a run's tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.layout.run import LayoutRun

Weights = tuple[tuple[int, ...], tuple[float, ...]]
"""Features and their weights, largest first."""


def concept_contrasts(run: LayoutRun, site: Site) -> dict[str, Weights]:
    """By concept, features by mean activation in its cells minus what the cells' places alone would give.

    Over discovery pictures, a cell counting as much as the concept covers of it:
    w[f] = Σ S·(z[f] − mean z[f] in this cell of any picture) / Σ S; positive ones only, so that some may be empty.
    """
    images = run.of_split("discovery")
    codes = run.codes(site, images)
    truth = run.truth((codes.height, codes.width), images)
    used, place = np.unique(codes.feature, return_inverse=True)
    summed = np.bincount(place * codes.cells + codes.cell, weights=codes.value, minlength=len(used) * codes.cells)
    mean = summed.reshape(len(used), codes.cells) / len(images)
    weights: dict[str, Weights] = {}
    for number, concept in enumerate(run.concepts):
        fraction = truth.pixels[:, number] / truth.areas
        if fraction.any():
            inside = np.bincount(place, weights=codes.value * fraction[codes.image, codes.cell], minlength=len(used))
            weights[concept] = _largest(used, (inside - mean @ fraction.sum(axis=0)) / fraction.sum())
    return weights


def word_contrast(codes: SiteCodes, index: NDArray[np.int64], has: NDArray[np.bool_]) -> Weights:
    """Mean activation over pictures that have a word minus that over the others; positive ones only.

    Args:
        index: int [N], pictures as `codes` counts them.
        has: bool [N], whether their prompts have the word.
    """
    used, means = picture_means(codes)
    return _largest(used, means[index[has]].mean(axis=0) - means[index[~has]].mean(axis=0))


def picture_means(codes: SiteCodes) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The features that fire anywhere [F], and their mean activation over each picture [pictures, F]."""
    used, place = np.unique(codes.feature, return_inverse=True)
    shape = (len(codes.image_ids), len(used))
    sums = np.bincount(codes.image * np.int64(len(used)) + place, weights=codes.value, minlength=shape[0] * shape[1])
    return used, sums.reshape(shape) / codes.cells


def _largest(features: NDArray[np.int32], weights: NDArray[np.float64]) -> Weights:
    order = [int(i) for i in np.argsort(-weights, kind="stable") if weights[i] > 0]
    return tuple(int(features[i]) for i in order), tuple(round(float(weights[i]), 6) for i in order)
