"""Masks become evidence: additive integer counts for every feature and concept, exact at pixel resolution.

A feature's support in an image is the set of cells where its activation is > 0, enlarged to pixels by nearest
upsampling; cells of given pictures that nobody decided on are in no support. A concept's union is the union of its
segments in the image. Rows of one site and split, by keys:

neither feature nor concept
    ``images``: images with codes at the site.
concept only
    ``images``: with at least one segment; ``images_asked``: in which it was asked for; ``area``: pixels of
    its unions; ``cells``: those pixels per cell, row-major.
feature only
    ``images``: in which it fires; ``area``: pixels of its support; ``cells``: images in which it fires there.
feature and concept
    ``images``: in which it fires and the concept is present; ``hits``: of these, where the IoU of the
    binarised map with one segment is > ``hit_iou``; ``iou_micro``: sum of round(1e6 x the best such IoU);
    ``intersection``: pixels of support and union together; ``images_asked``: in which it fires and the
    concept was asked for; ``area``: pixels of its support in those.

Other counts are 0, other ``cells`` null. Base concepts are asked of every image of a run, so their
denominators are the feature's totals: pair rows of base concepts leave ``images_asked`` and ``area`` at 0 and
exist only where the two co-occur. Of a text stream (labeling/evidence/prompt_words.py) every word is base, and
``images_asked`` of a word counts the pictures that have it. For other concepts a pair row exists wherever the
feature fires in an image that was asked. Thus an image adds the same counts whatever images share its table, and
evidence adds up exactly.

The per-image rule follows arXiv 2504.15473, section 4.1: the map is min-max normalised over its cells and
binarised at > ``binarize``. A map that is constant over all cells has no contrast: it is binarised to nothing
and hits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import TEXT, Site
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.prompt_words import in_words
from gazetteer.labeling.evidence.rows import COUNTS, EvidenceRows, sum_evidence, table_of
from gazetteer.labeling.evidence.shard_masks import ImageEvidenceInput, ShardMasks, ShardMatrices, read_masks
from gazetteer.labeling.evidence.site_codes import SiteCodes, flat_codes, site_order

__all__ = ["ImageEvidenceInput", "build_evidence", "sum_evidence"]


@dataclass(frozen=True)
class _Pairs:
    """Every (image, feature) in which the feature fires at a site: R pairs.

    Attributes:
        image, feature: int64 [R].
        support, binary: 0/1 int64 CSR [R, I * cells], column = image * cells + cell.
        area, binary_area: int64 [R], pixels.
    """

    image: NDArray[np.int64]
    feature: NDArray[np.int64]
    support: sp.csr_array
    binary: sp.csr_array
    area: NDArray[np.int64]
    binary_area: NDArray[np.int64]


def _pairs(codes: SiteCodes, images: int, areas: NDArray[np.int64], binarize: float) -> _Pairs:
    """Cut the flat codes into maps and binarise each; `codes.image` counts the shard's images."""
    starts = codes.pair_starts()
    ends = np.append(starts, len(codes.image))
    lengths = np.diff(ends)
    value = codes.value.astype(np.float64)
    index = _index_type(images * codes.cells, len(value))
    column = codes.image.astype(index) * codes.cells + codes.cell.astype(index)
    pixels = areas.reshape(-1)[column]
    shape = (len(starts), images * codes.cells)
    if not len(starts):
        empty, none = sp.csr_array(shape, dtype=np.int64), np.zeros(0, np.int64)
        return _Pairs(none, none, empty, empty, none, none)
    high = np.maximum.reduceat(value, starts)
    # A silent cell has value 0, so the minimum is 0 unless the feature fires in every cell.
    low = np.where(lengths == codes.cells, np.minimum.reduceat(value, starts), 0.0)
    contrast = np.repeat(high - low, lengths)
    normal = np.divide(value - np.repeat(low, lengths), contrast, out=np.zeros_like(value), where=contrast > 0)
    on = normal > binarize
    before = np.concatenate(([0], np.cumsum(on))).astype(index)
    ones = np.ones(len(value), np.int64)
    support = sp.csr_array((ones, column, ends.astype(index)), shape=shape)
    binary = sp.csr_array((ones[on], column[on], before[ends]), shape=shape)
    return _Pairs(
        codes.image[starts].astype(np.int64), codes.feature[starts].astype(np.int64), support, binary,
        np.add.reduceat(pixels, starts), np.add.reduceat(pixels * on, starts),
    )  # fmt: skip


def _index_type(*largest: int) -> np.dtype[Any]:
    """The integers that hold such places: scipy reads wider ones whole to see whether narrow ones would do."""
    return np.dtype(np.int32 if max(largest) <= np.iinfo(np.int32).max else np.int64)


def _best_ious(pairs: _Pairs, masks: ShardMasks, matrices: ShardMatrices, grid: Grid) -> tuple[NDArray[np.int64], ...]:
    """Best IoU of each binarised map with one segment of a concept: (pair, union, IoU) where they meet."""
    meet = (pairs.binary @ matrices.segments[grid]).tocoo()
    together = meet.data.astype(np.float64)
    iou = together / (pairs.binary_area[meet.row] + masks.segments[grid].sum(axis=1)[meet.col] - together)
    key = meet.row.astype(np.int64) * max(len(masks.union_image), 1) + masks.segment_union[meet.col]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.concatenate(([True], np.diff(key[order]) != 0))[: len(order)])
    best = np.maximum.reduceat(iou[order], starts) if len(starts) else iou
    pair, union = np.divmod(key[order][starts], max(len(masks.union_image), 1))
    return pair, union, best


class _Tally:
    """Counts of one site, filled for one split at a time."""

    def __init__(self, codes: SiteCodes, masks: ShardMasks, matrices: ShardMatrices, config: EvidenceConfig) -> None:
        self.site, self.masks, self.matrices, self.codes = codes.site, masks, matrices, codes
        self.grid = (codes.height, codes.width)
        self.pairs = _pairs(codes, len(masks.asked), masks.areas[self.grid], config.binarize)
        self.overlap = (self.pairs.support @ matrices.unions[self.grid]).tocoo()
        self.best = _best_ious(self.pairs, masks, matrices, self.grid)
        self.hit_iou = config.hit_iou

    def rows(self, split: str, chosen: NDArray[np.bool_]) -> EvidenceRows:
        """Rows of the images `chosen`, bool [I]."""
        features, maps = self._feature_totals(chosen)
        f, c, pairs = self._pair_counts(chosen, features[:, 0])
        totals, unions = self._concept_totals(chosen)
        none = np.full(1, -1)
        feature = np.concatenate((none, np.full(len(totals), -1), features[:, 0], features[f, 0]))
        concept = np.concatenate((none, totals[:, 0], np.full(len(features), -1), c))
        top = np.zeros((1, len(COUNTS)), np.int64)
        top[0, 0] = chosen.sum()
        counts = np.concatenate((top, totals[:, 1:], features[:, 1:], pairs))
        order = np.lexsort((concept, feature))
        return EvidenceRows(
            self.site, split, feature[order], concept[order], counts[order],
            np.concatenate((unions, maps)), self.masks.concepts,
        )  # fmt: skip

    def _feature_totals(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(feature, then COUNTS) of every feature that fires, int64 [F, 7], and its cells [F, h * w]."""
        own_pairs = chosen[self.pairs.image]
        names, which = np.unique(self.pairs.feature[own_pairs], return_inverse=True)
        totals = np.zeros((len(names), 1 + len(COUNTS)), np.int64)
        totals[:, 0] = names
        totals[:, 1] = np.bincount(which, minlength=len(names))
        np.add.at(totals[:, 6], which, self.pairs.area[own_pairs])
        active = chosen[self.codes.image]
        place = np.searchsorted(names, self.codes.feature[active]) * self.codes.cells + self.codes.cell[active]
        cells = np.bincount(place, minlength=len(names) * self.codes.cells)
        return totals, cells.reshape(len(names), self.codes.cells)

    def _concept_totals(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(concept, then COUNTS) of every concept asked, int64 [C', 7], and pixels of its unions per cell."""
        masks, own_masks = self.masks, chosen[self.masks.union_image]
        cells = np.zeros((len(masks.concepts), self.codes.cells), np.int64)
        np.add.at(cells, masks.union_concept[own_masks], masks.unions[self.grid][own_masks])
        asked = masks.asked[chosen].sum(axis=0)
        asked_concepts = np.flatnonzero(asked)
        totals = np.zeros((len(asked_concepts), 1 + len(COUNTS)), np.int64)
        totals[:, 0], totals[:, 1], totals[:, 2] = (
            asked_concepts,
            masks.present[chosen].sum(axis=0)[asked_concepts],
            asked[asked_concepts],
        )
        totals[:, 6] = cells[asked_concepts].sum(axis=1)
        return totals, cells[asked_concepts]

    def _pair_counts(
        self, chosen: NDArray[np.bool_], names: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Every pair that is written: index into `names` [T], concept [T], and COUNTS [T, 6].

        Sparse throughout: most features meet few of the concepts of a large vocabulary.
        """
        masks, pairs = self.masks, self.pairs
        own_pairs = np.flatnonzero(chosen[pairs.image])
        row = np.searchsorted(names, pairs.feature)  # meaningless outside `own_pairs`
        at, shape = (row[own_pairs], pairs.image[own_pairs]), (len(names), len(chosen))
        fires = sp.csr_array((np.ones(len(own_pairs), np.int64), at), shape)
        width = max(len(masks.concepts), 1)
        columns = {0: _entries(fires @ self.matrices.present, width)}
        if self.matrices.open is not None:
            support = sp.csr_array((pairs.area[own_pairs], at), shape)
            columns |= {
                1: _entries(fires @ self.matrices.open, width),
                5: _entries(support @ self.matrices.open, width),
            }
        keys = np.unique(np.concatenate([key for key, _ in columns.values()]))
        counts = np.zeros((len(keys), len(COUNTS)), np.int64)
        for column, (key, value) in columns.items():
            counts[np.searchsorted(keys, key), column] = value
        pair, union, best = self.best
        keep = chosen[pairs.image[pair]]
        place = np.searchsorted(keys, row[pair[keep]] * width + masks.union_concept[union[keep]])
        np.add.at(counts[:, 2], place, best[keep] > self.hit_iou)
        np.add.at(counts[:, 3], place, np.rint(1e6 * best[keep]).astype(np.int64))
        keep = chosen[pairs.image[self.overlap.row]]
        place = np.searchsorted(keys, row[self.overlap.row[keep]] * width + masks.union_concept[self.overlap.col[keep]])
        np.add.at(counts[:, 4], place, self.overlap.data[keep])
        return *np.divmod(keys, width), counts


def _entries(product: sp.csr_array, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The entries > 0 of a matrix of `width` columns: row * width + column, and the value."""
    entries = product.tocoo()
    positive = entries.data > 0
    return entries.row[positive].astype(np.int64) * width + entries.col[positive], entries.data[positive]


def _site_codes(site: Site, images: Sequence[ImageEvidenceInput]) -> tuple[SiteCodes, NDArray[np.bool_]]:
    """The codes of a site with `image` counting the shard's images, and which images have the site."""
    maps = [(i, picture.codes[site]) for i, picture in enumerate(images) if site in picture.codes]
    grids = {(m.height, m.width) for _, m in maps}
    if len(grids) != 1:
        raise InputError(f"Codes of {site.slug} have several grids: {sorted(grids)}; one site needs one.")
    flat = flat_codes(
        site, [images[i].image_id for i, _ in maps], grids.pop(),
        np.concatenate([np.asarray(m.feature).reshape(-1) for _, m in maps]),
        np.concatenate([np.asarray(m.value).reshape(-1) for _, m in maps]),
        np.array([np.asarray(m.feature).size for _, m in maps]),
    ).judged()  # fmt: skip
    place = np.array([i for i, _ in maps], np.int32)
    has = np.zeros(len(images), np.bool_)
    has[place] = True
    return replace(flat, image=place[flat.image]), has


def build_evidence(
    images: Sequence[ImageEvidenceInput], base: Sequence[str] = (), config: EvidenceConfig = EvidenceConfig()
) -> pa.Table:
    """The evidence of a set of images, a pure function of the set.

    Args:
        images: any number, in any order, ids unique.
        base: concepts asked of every image of the whole run (not only of these).
        config: thresholds of the per-image rule.
    Returns:
        schemas.EVIDENCE in canonical order: block, branch, t downwards, split, feature, concept, nulls first.
    Raises:
        InputError: repeated ids, a base concept not asked of an image, a mask of another size than its
        picture,
            codes that do not fill their grid, or one site with several grids.
    """
    ordered = sorted(images, key=lambda picture: picture.image_id)
    for picture in ordered:
        missing = set(base) - set(picture.asked)
        if missing:
            raise InputError(f"Image {picture.image_id} was not asked for the base concepts {sorted(missing)}.")
    if len({picture.image_id for picture in ordered}) != len(ordered):
        raise InputError("An image occurs twice in one set of evidence.")
    rows: dict[Site, list[EvidenceRows]] = {}
    for sites, inputs, asked in _by_stream(ordered, base):
        maps = {(m.height, m.width) for picture in inputs for site, m in picture.codes.items() if site in sites}
        masks = read_masks(inputs, sorted(maps))
        is_base = np.isin(np.array(masks.concepts, dtype=np.str_), list(masks.concepts if asked is None else asked))
        matrices = ShardMatrices(masks, is_base)
        splits = np.array([picture.split for picture in inputs])
        for site in sites:
            codes, has = _site_codes(site, inputs)
            tally = _Tally(codes, masks, matrices, config)
            own = sorted(set(splits[has]))
            rows[site] = [tally.rows(str(split), has & (splits == split)) for split in own]
    return table_of(part for site in sorted(rows, key=site_order) for part in rows[site])


def _by_stream(
    images: Sequence[ImageEvidenceInput], base: Sequence[str]
) -> Iterator[tuple[list[Site], Sequence[ImageEvidenceInput], Sequence[str] | None]]:
    """Sites whose evidence is of one kind, with what it is counted from and the base concepts (None: all of them)."""
    widths = {site: picture.codes[site].width for picture in images for site in picture.codes}
    pictured = [site for site in widths if site.stream != TEXT]
    if pictured:
        yield pictured, images, base
    for places in sorted({width for site, width in widths.items() if site.stream == TEXT}):
        spoken = [site for site, width in widths.items() if site.stream == TEXT and width == places]
        yield spoken, [in_words(picture, places) for picture in images], None
