"""Evidence of one site and split with its denominators resolved, ready for statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.labeling.evidence.rows import EvidenceRows, rows_of

Ints = NDArray[np.int64]
_PRODUCTS = 2**24  # features x concepts multiplied at a time


@dataclass(frozen=True)
class SplitEvidence:
    """Evidence of F firing features, C concepts and their T co-occurring pairs, within one site and split.

    Attributes:
        images: images at the site in the split.
        concepts: every concept of the evidence, sorted; [C] arrays count in this order.
        concept_images, concept_asked, concept_area: int64 [C]; `concept_cells`: int64 [C, cells], no cells where the
            evidence was read without maps.
        features: int64 [F], ascending; `feature_images`, `feature_area`: int64 [F]; `feature_cells`: [F,
        cells]. row, concept: int64 [T], indices into `features` and `concepts`, ordered by both. both, hits,
        iou_micro, intersection: int64 [T]. asked: int64 [T], images in which the feature fires and the
        concept was asked for. area: int64 [T], pixels of the feature's support in those images.
        vain_row, vain_concept: int64 [V], pairs that never meet although the feature has support in an image that was
        asked for the concept; without those of base concepts, of which any feature's support is in such an image.
    """

    images: int
    concepts: Sequence[str]
    concept_images: Ints
    concept_asked: Ints
    concept_area: Ints
    concept_cells: Ints
    features: Ints
    feature_images: Ints
    feature_area: Ints
    feature_cells: Ints
    row: Ints
    concept: Ints
    both: Ints
    hits: Ints
    iou_micro: Ints
    intersection: Ints
    asked: Ints
    area: Ints
    vain_row: Ints
    vain_concept: Ints

    def expected_intersection(self) -> NDArray[np.float64]:
        """Mean intersection in pixels when images are shuffled and all maps kept: float64 [T].

        E = sum over cells of A[cell] * M[cell] / N, with A[cell] the images in which the feature fires in the
        cell, M[cell] the concept's pixels there and N the images that were asked for the concept (the
        identity is one of the shuffles). For a concept that was not asked of every image A is known only over
        all images and is scaled by the share of the feature's images that were asked.
        """
        if not self.concept_cells.shape[1] and len(self.row):
            raise InputError("The evidence was read without its maps, which say what shuffled images would give.")
        fraction = self.asked / self.feature_images[self.row]
        maps = self.concept_cells.T.astype(np.float64)
        product = np.zeros(len(self.row))
        step = max(1, _PRODUCTS // max(1, maps.shape[1]))
        for start in range(0, len(self.features), step):  # integers below 2**53: exact in whatever order they are added
            low, high = np.searchsorted(self.row, (start, start + step))
            sums = self.feature_cells[start : start + step].astype(np.float64) @ maps
            product[low:high] = sums[self.row[low:high] - start, self.concept[low:high]]
        return product * fraction / self.concept_asked[self.concept]


def view(rows: EvidenceRows) -> SplitEvidence:
    """Resolve one site and split: a concept asked of every image takes the feature's totals as denominators."""
    feature, concept = rows.feature, rows.concept
    top = (feature < 0) & (concept < 0)
    images = int(rows.counts[top, 0].sum())
    of_concept, of_feature = (feature < 0) & (concept >= 0), (feature >= 0) & (concept < 0)
    totals = np.zeros((len(rows.concepts), rows.counts.shape[1]), np.int64)
    totals[concept[of_concept]] = rows.counts[of_concept]
    maps = of_concept.sum()
    cells = np.zeros((len(rows.concepts), rows.cells.shape[1]), np.int64)
    cells[concept[of_concept]] = rows.cells[:maps]
    names = feature[of_feature]
    both, meet = (feature >= 0) & (concept >= 0), rows.counts[:, 0] > 0
    pair, vain = np.flatnonzero(both & meet), np.flatnonzero(both & ~meet & (rows.counts[:, 5] > 0))
    row, which, counts = np.searchsorted(names, feature[pair]), concept[pair], rows.counts[pair]
    if rows.site.stream == TEXT:  # of every prompt it is known which words it has
        totals[:, 1] = images
    everywhere = totals[which, 1] == images
    f_images, f_area = rows.counts[of_feature, 0], rows.counts[of_feature, 5]
    return SplitEvidence(
        images=images, concepts=rows.concepts,
        concept_images=totals[:, 0], concept_asked=totals[:, 1], concept_area=totals[:, 5],
        concept_cells=cells, features=names, feature_images=f_images, feature_area=f_area,
        feature_cells=rows.cells[maps:], row=row, concept=which, both=counts[:, 0], hits=counts[:, 2],
        iou_micro=counts[:, 3], intersection=counts[:, 4], asked=np.where(everywhere, f_images[row], counts[:,
        1]), area=np.where(everywhere, f_area[row], counts[:, 5]),
        vain_row=np.searchsorted(names, feature[vain]), vain_concept=concept[vain],
    )  # fmt: skip


def asked_areas(rows: EvidenceRows, seen: SplitEvidence) -> Ints:
    """Pixels of every feature's support over the pictures that were asked for every concept: int64 [F, C].

    Args:
        rows: of one site and split; seen: their `view`, whose pairs are those that meet.
    """
    everywhere = seen.concept_asked == seen.images
    areas = np.where(everywhere, seen.feature_area[:, None], 0)
    apart = (rows.feature >= 0) & (rows.concept >= 0) & (rows.counts[:, 0] == 0)  # it fires where it was asked in vain
    apart[apart] = ~everywhere[rows.concept[apart]]
    areas[np.searchsorted(seen.features, rows.feature[apart]), rows.concept[apart]] = rows.counts[apart, 5]
    areas[seen.row, seen.concept] = seen.area
    return areas


def views(evidence: pa.Table) -> dict[Site, dict[str, SplitEvidence]]:
    """{site: {split: its evidence}} of an evidence table, sites in table order."""
    by_site: dict[Site, dict[str, SplitEvidence]] = {}
    for rows in rows_of(evidence) if evidence.num_rows else []:
        by_site.setdefault(rows.site, {})[rows.split] = view(rows)
    return by_site
