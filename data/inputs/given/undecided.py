"""What nobody decided on in the given pictures of a run, as its codes keep it: whole cells of the finest grid.

A run has no mask of what was marked to be ignored, but a minus sign before what fires in a cell of which more than half
was (`gazetteer.data.tables.codes.SparseMap`). That is what it counted by, so that labelling it again counts alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gazetteer.data.core.sites import IMAGE
from gazetteer.data.inputs.given.config import given_setting
from gazetteer.data.inputs.given.picture import Masks
from gazetteer.data.runs.folder import RunFolder

COLUMNS = ("image_id", "stream", "height", "width", "k", "value")


def undecided_cells(run: RunFolder, shards: Sequence[str] | None = None) -> dict[str, Masks]:
    """bool [h, w] of the pictures that have such cells, by image id; of generated pictures nothing is read.

    Args:
        shards: of these alone; default all.

    Raises:
        InputError: codes that are missing or corrupt.
    """
    if not given_setting(run.read_json("run.json") or {}):
        return {}
    cells: dict[str, Masks] = {}
    for shard in run.shard_ids() if shards is None else shards:  # one by one: codes are large
        cells |= _cells_of(run.read_table("codes", [shard], list(COLUMNS)))
    return cells


def cells_of_parts(folder: Path) -> dict[str, Masks]:
    """The same of a run's tables without its records, of which `folder` is ``codes/``, where it is there.

    Raises:
        OSError, pyarrow.ArrowException: parts that cannot be read.
    """
    cells: dict[str, Masks] = {}
    for part in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(part) as opened:
            if set(COLUMNS) <= set(opened.schema_arrow.names):  # else older than what marks anything
                cells |= _cells_of(opened.read(columns=list(COLUMNS)))
    return cells


def _cells_of(table: pa.Table) -> dict[str, Masks]:
    """By image id; every code of a picture is in one part."""
    cells: dict[str, Masks] = {}
    values = table["value"].combine_chunks()
    negative = np.signbit(values.values.to_numpy(zero_copy_only=False))
    starts = values.offsets.to_numpy()
    rows = zip(*(table[name].to_pylist() for name in COLUMNS[:-1]), strict=True)
    for (image_id, stream, height, width, k), start, end in zip(rows, starts[:-1], starts[1:], strict=True):
        own = negative[start:end]
        known = cells.get(image_id)
        if stream != IMAGE or not own.any() or (known is not None and known.size > height * width):
            continue
        fired = own.reshape(height, width, k).any(axis=2)
        cells[image_id] = known | fired if known is not None and known.shape == fired.shape else fired
    return cells


def at_pixels(cells: Masks, height: int, width: int) -> NDArray[np.bool_]:
    """The same at a picture's size: pixel y of H rows is of cell floor(y · h ÷ H), columns alike."""
    rows, columns = (np.arange(side) * grid // side for side, grid in zip((height, width), cells.shape, strict=True))
    return np.asarray(cells[rows][:, columns])
