"""One shard's pictures as numbers: every mask pooled to every grid, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.data.tables.words import PromptWord
from gazetteer.labeling.evidence.pooling import Grid, cell_areas, pool_masks


@dataclass(frozen=True)
class ImageEvidenceInput:
    """What one image contributes.

    Attributes:
        image_id: unique.
        split: ``discovery`` or ``heldout``.
        size: (H, W) of the picture in pixels.
        asked: concepts the detector was asked for; a concept with a segment counts as asked.
        segments: (concept, bool mask [H, W]) for every segment.
        codes: the sparse code of every site.
        words: of the prompt, where sites listen to the text stream.
    """

    image_id: str
    split: str
    size: tuple[int, int]
    asked: tuple[str, ...]
    segments: list[tuple[str, NDArray[np.bool_]]]
    codes: dict[Site, SparseMap]
    words: tuple[PromptWord, ...] = ()


@dataclass(frozen=True)
class ShardMasks:
    """The masks of I images: C concepts in sorted order, S segments, U unions ordered by (image, concept).

    Attributes:
        asked, present: bool [I, C].
        segment_image, segment_union: int64 [S].
        union_image, union_concept: int64 [U].
        segments, unions: per grid, pixels per cell int64 [S or U, h * w].
        areas: per grid, pixels of every cell int64 [I, h * w].
    """

    concepts: tuple[str, ...]
    asked: NDArray[np.bool_]
    present: NDArray[np.bool_]
    segment_image: NDArray[np.int64]
    segment_union: NDArray[np.int64]
    union_image: NDArray[np.int64]
    union_concept: NDArray[np.int64]
    segments: dict[Grid, NDArray[np.int64]] = field(default_factory=dict)
    unions: dict[Grid, NDArray[np.int64]] = field(default_factory=dict)
    areas: dict[Grid, NDArray[np.int64]] = field(default_factory=dict)


class ShardMatrices:
    """A shard's masks as matrices, built once for all sites.

    Attributes:
        segments, unions: of every grid, CSC of `_mask_matrix`.
        present, open: int64 CSR [I, C], what is in a picture and what was asked of it beyond the base concepts; `open`
            is None where nothing was.
    """

    def __init__(self, masks: ShardMasks, base: NDArray[np.bool_]) -> None:
        images = len(masks.asked)
        self.segments = {g: _mask_matrix(own, masks.segment_image, images) for g, own in masks.segments.items()}
        self.unions = {g: _mask_matrix(own, masks.union_image, images) for g, own in masks.unions.items()}
        beyond = masks.asked & ~base
        self.present = sp.csr_array(masks.present.astype(np.int64))
        self.open = sp.csr_array(beyond.astype(np.int64)) if beyond.any() else None


def _mask_matrix(counts: NDArray[np.int64], image: NDArray[np.int64], images: int) -> sp.csc_array:
    """Masks as int64 CSC [I * cells, masks], pixels of the mask in each cell of its own image."""
    mask, cell = np.nonzero(counts)
    cells = counts.shape[1]
    return sp.csc_array((counts[mask, cell], (image[mask] * cells + cell, mask)), shape=(images * cells, len(counts)))


def read_masks(images: Sequence[ImageEvidenceInput], grids: Sequence[Grid]) -> ShardMasks:
    """Pool every segment and every union of the shard once for all grids."""
    names = {c for picture in images for c in picture.asked} | {c for picture in images for c, _ in picture.segments}
    concepts = tuple(sorted(names))
    index = {name: number for number, name in enumerate(concepts)}
    asked = np.zeros((len(images), len(concepts)), np.bool_)
    present = np.zeros_like(asked)
    owners: list[tuple[int, int]] = []  # (image, union) of every segment
    unions: list[tuple[int, int]] = []  # (image, concept) of every union
    pooled: dict[str, list[dict[Grid, NDArray[np.int64]]]] = {"segments": [], "unions": []}
    for i, picture in enumerate(images):
        asked[i, [index[c] for c in picture.asked]] = True
        own = sorted({index[c] for c, _ in picture.segments})
        present[i, own] = True
        asked[i, own] = True
        owners += [(i, len(unions) + own.index(index[c])) for c, _ in picture.segments]
        unions += [(i, c) for c in own]
        for _, mask in picture.segments:
            if mask.shape != tuple(picture.size):
                raise InputError(f"A mask of {picture.image_id} is {mask.shape}, but the picture is {picture.size}.")
        if picture.segments:
            masks = np.stack([np.asarray(mask, np.bool_) for _, mask in picture.segments])
            labels = np.array([index[c] for c, _ in picture.segments])
            pooled["segments"].append(pool_masks(masks, grids))
            pooled["unions"].append(pool_masks(np.stack([masks[labels == c].any(axis=0) for c in own]), grids))
    segment, union = (np.array(pairs, np.int64).reshape(-1, 2) for pairs in (owners, unions))
    stacked = {
        kind: {g: np.concatenate([np.zeros((0, g[0] * g[1]), np.int64), *(p[g] for p in parts)]) for g in grids}
        for kind, parts in pooled.items()
    }
    areas = {g: np.stack([cell_areas(picture.size, g) for picture in images]) for g in grids}
    return ShardMasks(
        concepts, asked, present, segment[:, 0], segment[:, 1], union[:, 0], union[:, 1],
        stacked["segments"], stacked["unions"], areas,
    )  # fmt: skip
