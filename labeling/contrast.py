"""How much more each feature fires where a concept is: the weights of its features in an edit, from a run's tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.sites import Site
from labeling.layout_data import LayoutRun
from labeling.site_codes import SiteCodes

Weights = tuple[tuple[int, ...], tuple[float, ...]]
"""Features and their weights, largest first."""


def concept_contrast(run: LayoutRun, site: Site, concept: str, top: int = 0) -> Weights:
    """Mean activation in the concept's cells minus what the cells' places alone would give; positive ones only.

    Over discovery pictures, a cell counting as much as the concept covers of it:
    w[f] = Σ S·(z[f] − mean z[f] in this cell of any picture) / Σ S. May be empty.

    Args:
        top: the largest so many; 0: all.
    """
    images = run.of_split("discovery")
    codes = run.codes(site, images)
    truth = run.truth((codes.height, codes.width), images)
    if concept not in run.concepts or not truth.pixels[:, run.concepts.index(concept)].any():
        return (), ()
    share = truth.pixels[:, run.concepts.index(concept)] / truth.areas
    used, place = np.unique(codes.feature, return_inverse=True)
    mean = np.zeros((len(used), codes.cells))
    np.add.at(mean, (place, codes.cell), codes.value / len(images))
    inside = np.bincount(place, weights=codes.value * share[codes.image, codes.cell], minlength=len(used))
    return _largest(used, (inside - mean @ share.sum(axis=0)) / share.sum(), top)


def word_contrast(codes: SiteCodes, index: NDArray[np.int64], has: NDArray[np.bool_], top: int = 0) -> Weights:
    """Mean activation over pictures that have a word minus that over the others; positive ones only.

    Args:
        index: int [N], pictures as `codes` counts them.
        has: bool [N], whether their prompts have the word.
        top: the largest so many; 0: all.
    """
    used, means = picture_means(codes)
    return _largest(used, means[index[has]].mean(axis=0) - means[index[~has]].mean(axis=0), top)


def picture_means(codes: SiteCodes) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The features that fire anywhere [F], and their mean activation over each picture [pictures, F]."""
    used, place = np.unique(codes.feature, return_inverse=True)
    means = np.zeros((len(codes.image_ids), len(used)))
    np.add.at(means, (codes.image, place), codes.value / codes.cells)
    return used, means


def _largest(features: NDArray[np.int32], weights: NDArray[np.float64], top: int) -> Weights:
    order = [int(i) for i in np.argsort(-weights, kind="stable")[: top or None] if weights[i] > 0]
    return tuple(int(features[i]) for i in order), tuple(round(float(weights[i]), 6) for i in order)
