"""What the predictor is compared with: cross-attention, dense directions, a linear probe, and raw neurons.

The layout prior and chance need no code of their own: the mean mask per concept, and the whole picture (of all
predictions that look at nothing, marking everything has the highest expected IoU for masks of unknown place).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes, flat_codes
from gazetteer.labeling.layout.calibration import on_grid
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.site_table import SiteTable

Floats = NDArray[np.float32]


def attention_scores(attention: Floats, own: Grid, grid: Grid) -> Floats:
    """Attention [N, cells, C] on another grid, each map divided by its maximum, as DAAM thresholds it."""
    maps = on_grid(attention, own, grid)
    return np.asarray(maps / np.maximum(maps.max(axis=1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True)
class Probe:
    """Linear maps from standardised activations to mask shares; several blocks, each cell beside its upsampled ones.

    Attributes: mean, scale float32 [d]; weights float64 [d + 1, C], the intercept last.
    """

    mean: Floats
    scale: Floats
    weights: NDArray[np.float64]

    def __call__(self, dense: Floats) -> Floats:
        """Evidence [N, cells, C] of activations [N, cells, d]."""
        x = (dense - self.mean) / self.scale
        return np.asarray(x @ self.weights[:-1].astype(np.float32) + self.weights[-1], np.float32) * 8.0


def dense_inputs(parts: Sequence[tuple[NDArray[np.float16], Grid]], grid: Grid) -> Floats:
    """Activations of several blocks on one grid, side by side: float32 [N, cells, sum of d]."""
    return np.concatenate([np.asarray(on_grid(part, own, grid), np.float32) for part, own in parts], axis=2)


def fit_probe(dense: Floats, truth: Truth, ridge: float = 1e-2) -> Probe:
    """Ridge regression of every cell's mask shares on its activations, in closed form.

    ridge: relative to the number of cells; inputs have unit variance.
    """
    flat = dense.reshape(-1, dense.shape[2])
    mean, scale = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-6)
    x = (flat - mean) / scale
    y = (truth.pixels / truth.areas).transpose(0, 2, 1).reshape(len(flat), -1).astype(np.float32)
    middle = y.mean(axis=0, dtype=np.float64)
    curve = (x.T @ x).astype(np.float64) + ridge * len(flat) * np.eye(x.shape[1])
    weights = np.linalg.solve(curve, (x.T @ (y - middle.astype(np.float32))).astype(np.float64))
    return Probe(mean, scale, np.concatenate([weights, middle[None]]))


@dataclass(frozen=True)
class Directions:
    """One direction a concept in standardised activations: their mean in its cells minus that of the cells' places.

    Attributes: mean, scale float32 [d]; vectors float32 [d, C], of length 1 or 0.
    """

    mean: Floats
    scale: Floats
    vectors: Floats

    @classmethod
    def of(cls, dense: Floats, truth: Truth) -> Directions:
        """From activations [N, cells, d], a cell counting as much as the concept covers of it."""
        flat = dense.reshape(-1, dense.shape[2])
        mean, scale = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-6)
        x = (dense - mean) / scale
        fraction = (truth.pixels / truth.areas).astype(np.float32)  # [N, C, cells]
        inside = fraction.transpose(1, 0, 2).reshape(fraction.shape[1], -1) @ x.reshape(-1, x.shape[2])
        presence = fraction.sum(axis=0) @ x.mean(axis=0)
        vectors = (inside - presence) / np.maximum(fraction.sum(axis=(0, 2)), 1e-6)[:, None]
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return cls(mean, scale, np.asarray((vectors / lengths).T, np.float32))

    def __call__(self, dense: Floats) -> Floats:
        """Evidence [N, cells, C] of activations [N, cells, d]: how far they lie along each direction."""
        return np.asarray((dense - self.mean) / self.scale @ self.vectors, np.float32)


def out_of_fold(fit: Callable[[Floats, Truth], Callable[[Floats], Floats]], dense: Floats, truth: Truth) -> Floats:
    """Evidence of training pictures from fits that did not see them: two halves, each judged by the other's."""
    out = np.zeros((len(dense), dense.shape[1], truth.pixels.shape[1]), np.float32)
    halves = [np.arange(start, len(dense), 2) for start in (0, 1)]
    for half, other in (halves, halves[::-1]):
        if len(half) and len(other):
            out[half] = fit(dense[other], truth.take(other))(dense[half])
    return out


@dataclass(frozen=True)
class Neurons:
    """Raw channels in the place of features: channel j is feature 2j where it is high, 2j + 1 where it is low.

    Attributes: mean, scale float32 [d] over training cells; k, channels kept of a cell, the most unusual ones.
    """

    mean: Floats
    scale: Floats
    k: int

    @classmethod
    def of(cls, dense: NDArray[np.float16], k: int) -> Neurons:
        """Means and deviations of training activations [N, cells, d]."""
        flat = np.asarray(dense, np.float32).reshape(-1, dense.shape[2])
        return cls(flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-6), min(k, dense.shape[2]))

    def codes(self, site: Site, image_ids: Sequence[str], dense: NDArray[np.float16], grid: Grid) -> SiteCodes:
        """The k most unusual channels of every cell as codes."""
        z = (np.asarray(dense, np.float32) - self.mean) / self.scale
        top = np.argpartition(-np.abs(z), self.k - 1, axis=2)[:, :, : self.k]
        value = np.take_along_axis(z, top, axis=2)
        feature = 2 * top + (value < 0)
        slots = np.full(len(z), z.shape[1] * self.k, np.int64)
        return flat_codes(site, list(image_ids), grid, feature.ravel(), np.abs(value).ravel(), slots)


def table_of_codes(codes: SiteCodes, truth: Truth, concepts: tuple[str, ...]) -> SiteTable:
    """The counts of `SiteTable`, from codes and the masks of the same training pictures."""
    features, row = np.unique(codes.feature, return_inverse=True)
    n, cells = len(codes.image_ids), codes.cells
    place = codes.image.astype(np.int64) * cells + codes.cell
    support = sp.csr_array((np.ones(len(row)), (row, place)), (len(features), n * cells))
    pixels = truth.pixels.transpose(0, 2, 1).astype(np.float64)  # [N, cells, C]
    known = truth.asked[:, None, :] * truth.areas[None, :, None]
    fired = sp.csr_array((np.ones(len(row)), (row, codes.cell)), (len(features), cells)).toarray()
    asked = np.maximum(truth.asked.sum(axis=0), 1)
    prior_pixels = pixels.sum(axis=0).T
    return SiteTable(
        site=codes.site,
        grid=(codes.height, codes.width),
        concepts=concepts,
        features=features.astype(np.int64),
        intersection=support @ pixels.reshape(n * cells, -1),
        area=support @ known.reshape(n * cells, -1),
        expected=fired @ prior_pixels.T / asked / np.maximum(fired @ truth.areas, 1.0)[:, None],
        hits=np.zeros((len(features), len(concepts)), np.int64),
        prior_pixels=prior_pixels,
        prior_area=np.outer(truth.asked.sum(axis=0), truth.areas),
        cell_pixels=truth.areas,
    )
