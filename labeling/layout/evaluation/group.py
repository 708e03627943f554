"""Pictures that layout prediction is measured on, read in parts so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.layout.evaluation.model_pass import PassRecord
from gazetteer.labeling.layout.metrics import Truth

Images = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Pictures with masks and what was seen of them.

    Attributes:
        image_ids: of N pictures.
        read: the masks of some pictures (numbers of the source) on a grid.
        rows: int64 [N], the numbers of these pictures in that source.
        seen: None when nothing was sampled again.
        stored: whether `rows` are pictures of the run, with stored codes.
        prompts: int64 [N], equal for pictures that were drawn of one prompt; None where each stands for itself.
    """

    image_ids: tuple[str, ...]
    read: Callable[[Grid, Images], Truth]
    rows: Images
    seen: PassRecord | None
    stored: bool
    prompts: Images | None = None

    def truth(self, grid: Grid) -> Truth:
        """The masks of these pictures on a grid."""
        return self.read(grid, self.rows)

    def parts(self, most: int) -> Iterator[Group]:
        """The same pictures in order, at most so many at a time."""
        for start in range(0, len(self.rows), most):
            batch = slice(start, start + most)
            seen = None if self.seen is None else self.seen.part(batch)
            prompts = None if self.prompts is None else self.prompts[batch]
            yield Group(self.image_ids[batch], self.read, self.rows[batch], seen, self.stored, prompts)


def pictures_at_once(memory_mb: int, cells: int, concepts: int, places: int, width: int) -> int:
    """How many pictures fit into `memory_mb` when maps of all methods are made of them; at least 1.

    Counted are what a calibration reads (three columns a place and one for the prior, twice while they are stacked),
    the maps themselves, and, with `width` channels sampled again, the dense activations three times over; float32.

    Args:
        cells, concepts: of the maps. places: (block, branch) pairs. width: channels of all blocks together; 0 without.
    """
    each = 4 * cells * (concepts * (2 * (3 * places + 1) + 2 * places) + 3 * width)
    return max(1, memory_mb * 2**20 // each)
