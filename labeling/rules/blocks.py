"""Pictures in blocks, and the overlap of features and concepts for every cyclic shift within them.

What the location-preserving null (labeling/rules/null.py) draws from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gazetteer.labeling.evidence.concept_maps import ConceptMaps
from gazetteer.labeling.evidence.pooling import Grid

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Blocks:
    """Images in a random order, cut into blocks of nearly equal size.

    Attributes:
        images: int64 [N], the images in that order.
        firsts, sizes: int64 [b], where every block begins and how many images it has.
    """

    images: Ints
    firsts: Ints
    sizes: Ints

    @classmethod
    def of(cls, images: Ints, size: int) -> Blocks:
        """Blocks of about `size` images."""
        parts = np.array_split(images, max(1, -(-len(images) // size)))
        sizes = np.array([len(part) for part in parts], np.int64)
        return cls(images, np.cumsum(sizes) - sizes, sizes)

    def of_places(self) -> Ints:
        """The block of every place in the order: int64 [N]."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def block_sums(
    supports: tuple[Ints, Ints, NDArray[np.integer]],
    maps: sp.csr_array,
    cells: int,
    blocks: Blocks,
    row: Ints,
    column: Ints,
) -> Ints:
    """T_b[s] of every tested pair for every cyclic shift of every block.

    Args:
        supports: (feature, image, cell) of the active cells, features counted from 0.
        maps: int [I * cells, C], pixels of each concept in each cell of each image.
        cells: of the grid.
        blocks: the images that take part, each in one block.
        row, column: int64 [T], feature and concept of every pair.
    Returns:
        int32 or, for large sums, int64 [N, T]: the shifts of the first block, then of the second, and so on; a block's
        first row is the observed pairing.
    """
    feature, image, cell = supports
    wide, images = max(maps.shape[1], 1), len(blocks.images)
    place = np.full(maps.shape[0] // cells, -1)
    place[blocks.images] = np.arange(images)
    at, of = place[image].astype(_index(images)), blocks.of_places()
    features = 1 + int(feature.max(initial=-1))
    pair_of = np.full(features * wide, -1, _index(features * wide))
    pair_of[row * wide + column] = np.arange(len(row))
    sums = np.zeros((images, len(row)), maps.dtype)
    flat, exact = sums.reshape(-1), _index(maps.shape[0])
    cell, first_image = cell.astype(exact, copy=False), (blocks.images * cells).astype(exact)
    starts, lengths = maps.indptr[:-1], np.diff(maps.indptr)
    # Of every active cell: where its feature's pairs begin, and of its place where its block's sums do.
    pairs, firsts, sizes = (feature * wide).astype(pair_of.dtype), blocks.firsts[of] * len(row), blocks.sizes[of]
    for shift in range(int(blocks.sizes.max(initial=0))):
        partner = first_image[_shifted(blocks, shift)].take(at) + cell
        count = lengths.take(partner)
        own = np.flatnonzero(count if shift < blocks.sizes.min() else count * (shift < sizes).take(at))
        entry, left, begin = starts.take(partner.take(own)), count.take(own), pairs.take(own)
        to = (firsts + shift * len(row)).take(at.take(own))
        # The first concept that lies on every such cell, then the second of those that have more, and so on.
        while len(entry):
            pair = pair_of.take(begin + maps.indices.take(entry))
            tested = np.flatnonzero(pair >= 0)
            np.add.at(flat, to.take(tested) + pair.take(tested), maps.data.take(entry.take(tested)))
            more = np.flatnonzero(left > 1)
            entry, left, begin, to = entry.take(more) + 1, left.take(more) - 1, begin.take(more), to.take(more)
    return sums


def _shifted(blocks: Blocks, shift: int) -> Ints:
    """The place whose image each place is compared with: so many further in its block, around its end."""
    block = blocks.of_places()
    first, size = blocks.firsts[block], blocks.sizes[block]
    return first + (np.arange(len(blocks.images)) - first + shift) % size


def _index(size: int) -> type[np.signedinteger]:
    """What numbers below `size` fit in; a sparse matrix with 32 bits is not copied to make it so."""
    return np.int32 if size < 2**31 else np.int64


def concept_pixels(maps: ConceptMaps, grid: Grid, asked: NDArray[np.bool_], concepts: Ints, block: int) -> sp.csr_array:
    """Pixels of `concepts` in every cell of the images `asked`: [I * cells, concepts].

    In 32 bits where no sum over a block can exceed them.
    """
    column = np.full(len(maps.concepts), -1)
    column[concepts] = np.arange(len(concepts))
    used = np.flatnonzero(asked[maps.union_image] & (column[maps.union_concept] >= 0))
    union, cell = np.nonzero(maps.pixels[grid][used])
    cells = grid[0] * grid[1]
    largest = int(maps.sizes.prod(axis=1).max(initial=0)) * 2 * block
    data = maps.pixels[grid][used][union, cell].astype(np.int32 if largest < 2**31 else np.int64)
    at = maps.union_image[used][union] * cells + cell, column[maps.union_concept[used]][union]
    return sp.csr_array((data, at), (len(maps.image_ids) * cells, len(concepts)))
