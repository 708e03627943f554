"""What a run's tables know of a site, as score maps need it: counts of features and concepts, and the layout prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import logit

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.rows import EvidenceRows, rows_of
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.evidence.view import asked_areas, view
from gazetteer.labeling.layout.metrics import Truth

Floats = NDArray[np.float32]

PSEUDO_CELLS = 32.0
"""How many cells at the shuffled precision are added to a feature's counts."""

_SHARE = (1e-4, 1.0 - 1e-4)


@dataclass(frozen=True)
class SiteTable:
    """What the tables know of a site from the discovery pictures: F features that fire, C concepts.

    Attributes:
        site, grid: where; grid is (height, width).
        concepts: sorted; [C] axes count in this order.
        features: int64 [F], ascending.
        intersection: float64 [F, C], pixels of support and concept together.
        area: float64 [F, C], pixels of the support over pictures that were asked for the concept.
        expected: float64 [F, C], the precision that shuffled pictures would give (precision / lift).
        hits: int64 [F, C], pictures in which the feature hit the concept (`gazetteer.labeling.evidence.counts`).
        prior_pixels: float64 [C, cells], pixels of the concept in the cell, summed over pictures.
        prior_area: float64 [C, cells], pixels of the cell over the pictures asked for the concept.
        cell_pixels: float64 [cells], pixels of a cell.
    """

    site: Site
    grid: Grid
    concepts: tuple[str, ...]
    features: NDArray[np.int64]
    intersection: NDArray[np.float64]
    area: NDArray[np.float64]
    expected: NDArray[np.float64]
    hits: NDArray[np.int64]
    prior_pixels: NDArray[np.float64]
    prior_area: NDArray[np.float64]
    cell_pixels: NDArray[np.float64]

    def prior(self, own: Truth | None = None) -> Floats:
        """The mean mask of every concept, share of the cell: float32 [1 or N, cells, C].

        own: of N pictures to leave out, each from its own prior.
        """
        pixels, area = self.prior_pixels[None], self.prior_area[None]
        if own is not None:
            pixels = np.maximum(pixels - own.pixels.astype(np.float64), 0.0)
            area = np.maximum(area - own.asked[:, :, None] * self.cell_pixels, 1.0)
        fraction = pixels / np.maximum(area, 1.0)
        return fraction.transpose(0, 2, 1).astype(np.float32)

    def weights(
        self, rows: NDArray[np.int64], intersection: NDArray[np.float64], area: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """w(f, c) for the features `rows` [P] with the counts given [P, C]: float64 [P, C]."""
        pseudo = PSEUDO_CELLS * self.cell_pixels.mean()
        expected = np.clip(self.expected[rows], *_SHARE)
        precision = np.clip((intersection + pseudo * expected) / (area + pseudo), *_SHARE)
        weights: NDArray[np.float64] = logit(precision) - logit(expected)
        return weights

    def rows(self, codes: SiteCodes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Row of every slot's feature in the table, and whether it is there."""
        return row_of(self.features, codes)


def row_of(features: NDArray[np.int64], codes: SiteCodes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of every slot's feature among `features`, ascending, and whether it is there."""
    if not len(features):
        return np.zeros(len(codes.feature), np.int64), np.zeros(len(codes.feature), np.bool_)
    at = np.minimum(np.searchsorted(features, codes.feature), len(features) - 1)
    return at, features[at] == codes.feature


def site_tables(
    evidence: pa.Table,
    grids: Mapping[Site, Grid],
    pixels: float,
    undecided: Mapping[Site, SiteCodes] = MappingProxyType({}),
) -> dict[Site, SiteTable]:
    """The discovery evidence of every site, as the score maps need it.

    Args:
        evidence: schemas.EVIDENCE of a run, summed over its shards.
        grids: (height, width) of every site's grid.
        pixels: of a picture (their mean, when sizes differ).
        undecided: what fires in cells that the evidence leaves out, of its pictures: counted in what shuffled pictures
            would give, as `prior_area` counts those cells.
    Raises:
        InputError: a site without discovery pictures, or a grid that does not fit its evidence.
    """
    by_site: dict[Site, dict[str, EvidenceRows]] = {}
    for rows in rows_of(evidence) if evidence.num_rows else []:
        by_site.setdefault(rows.site, {})[rows.split] = rows
    tables = {}
    for site, splits in by_site.items():
        if "discovery" not in splits:
            raise InputError(f"The run has no discovery pictures at {site.slug}; a layout cannot be learned from it.")
        tables[site] = _site_table(site, splits["discovery"], grids[site], pixels, undecided.get(site))
    return tables


def _site_table(site: Site, rows: EvidenceRows, grid: Grid, pixels: float, undecided: SiteCodes | None) -> SiteTable:
    cells, evidence = grid[0] * grid[1], view(rows)
    if evidence.concept_cells.shape[1] != cells:
        raise InputError(f"The evidence at {site.slug} has {evidence.concept_cells.shape[1]} cells, its codes {cells}.")
    shape = (len(evidence.features), len(evidence.concepts))
    per_cell = np.full(cells, pixels / cells)
    intersection, hits = np.zeros(shape), np.zeros(shape, np.int64)
    area = asked_areas(rows, evidence).astype(np.float64)
    intersection[evidence.row, evidence.concept] = evidence.intersection
    hits[evidence.row, evidence.concept] = evidence.hits
    fired = evidence.feature_cells.astype(np.float64)
    if undecided is not None and len(evidence.features):
        row, known = row_of(evidence.features, undecided)
        np.add.at(fired, (row[known], undecided.cell[known]), 1.0)
    asked = np.maximum(evidence.concept_asked, 1)
    shared = fired @ evidence.concept_cells.T / asked  # E over all of the feature's pictures
    expected = shared / np.maximum(fired @ per_cell, 1.0)[:, None]
    prior_area = np.outer(evidence.concept_asked, per_cell)
    return SiteTable(
        site, grid, tuple(evidence.concepts), evidence.features, intersection, area, expected, hits,
        evidence.concept_cells.astype(np.float64), prior_area, per_cell,
    )  # fmt: skip
