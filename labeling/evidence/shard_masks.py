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
class PooledSegments:
    """What evidence needs of one picture's masks, which can then be given up.

    Attributes:
        concepts: of every segment, [S]; the unions are of those that occur, in sorted order.
        segments, unions: per grid, pixels per cell [S or U, h * w], in the narrowest integers that hold them.
    """

    concepts: tuple[str, ...]
    segments: dict[Grid, NDArray[np.unsignedinteger]]
    unions: dict[Grid, NDArray[np.unsignedinteger]]


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
        pooled: in the place of `segments`, which are then empty, what was kept of them for the grids of `codes`.
    """

    image_id: str
    split: str
    size: tuple[int, int]
    asked: tuple[str, ...]
    segments: list[tuple[str, NDArray[np.bool_]]]
    codes: dict[Site, SparseMap]
    words: tuple[PromptWord, ...] = ()
    pooled: PooledSegments | None = None


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


def pool_segments(picture: ImageEvidenceInput, grids: Sequence[Grid]) -> PooledSegments:
    """Pool every segment of a picture, and the union of those of each concept, to all grids.

    Raises:
        InputError: a mask of another size than the picture.
    """
    for _, mask in picture.segments:
        if mask.shape != tuple(picture.size):
            raise InputError(f"A mask of {picture.image_id} is {mask.shape}, but the picture is {picture.size}.")
    names = tuple(concept for concept, _ in picture.segments)
    if not names:
        none = {g: np.zeros((0, g[0] * g[1]), np.uint8) for g in grids}
        return PooledSegments((), none, none)
    masks = np.stack([np.asarray(mask, np.bool_) for _, mask in picture.segments])
    labels = np.array(names)
    unions = np.stack([masks[labels == concept].any(axis=0) for concept in sorted(set(names))])
    segments, united = (
        {g: counts.astype(np.min_scalar_type(int(counts.max()))) for g, counts in pool_masks(stack, grids).items()}
        for stack in (masks, unions)
    )
    return PooledSegments(names, segments, united)


def read_masks(images: Sequence[ImageEvidenceInput], grids: Sequence[Grid]) -> ShardMasks:
    """Pool every segment and every union of the shard once for all grids."""
    parts = [pool_segments(picture, grids) if picture.pooled is None else picture.pooled for picture in images]
    concepts = tuple(sorted({name for p, own in zip(images, parts, strict=True) for name in (*p.asked, *own.concepts)}))
    index = {name: number for number, name in enumerate(concepts)}
    asked = np.zeros((len(images), len(concepts)), np.bool_)
    present = np.zeros_like(asked)
    owners: list[tuple[int, int]] = []  # (image, union) of every segment
    unions: list[tuple[int, int]] = []  # (image, concept) of every union
    for i, (picture, pooled) in enumerate(zip(images, parts, strict=True)):
        asked[i, [index[c] for c in picture.asked]] = True
        own = sorted({index[c] for c in pooled.concepts})
        present[i, own] = True
        asked[i, own] = True
        owners += [(i, len(unions) + own.index(index[c])) for c in pooled.concepts]
        unions += [(i, c) for c in own]
    segment, union = (np.array(pairs, np.int64).reshape(-1, 2) for pairs in (owners, unions))
    areas = {g: np.stack([cell_areas(picture.size, g) for picture in images]) for g in grids}
    return ShardMasks(
        concepts, asked, present, segment[:, 0], segment[:, 1], union[:, 0], union[:, 1],
        {g: _stacked([part.segments[g] for part in parts], g) for g in grids},
        {g: _stacked([part.unions[g] for part in parts], g) for g in grids}, areas,
    )  # fmt: skip


def _stacked(parts: Sequence[NDArray[np.unsignedinteger]], grid: Grid) -> NDArray[np.int64]:
    """The counts of all pictures one below the other, int64 [rows, h * w]."""
    return np.concatenate([np.zeros((0, grid[0] * grid[1]), np.int64), *parts], dtype=np.int64)
