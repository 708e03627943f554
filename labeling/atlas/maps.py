"""Heat maps: for the pictures of a feature's plates, the cells in which it fires, packed for the page."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.labeling.evidence.site_codes import site_of

CODE_COLUMNS = ("image_id", *SITE_COLUMNS, "height", "width", "k", "feature", "value")


@dataclass(frozen=True)
class HeatMap:
    """One feature in one image: grid size and the packed cells (see `pack`)."""

    height: int
    width: int
    packed: str


Wanted = dict[tuple[Site, str], NDArray[np.int64]]
FoundMaps = dict[tuple[Site, str, int], HeatMap]


def wanted_maps(pairs: dict[Site, list[tuple[str, int]]]) -> Wanted:
    """From (image, feature) pairs a site: the distinct features wanted of every (site, image), int64 [n]."""
    gathered: dict[tuple[Site, str], list[int]] = defaultdict(list)
    for site, wanted in pairs.items():
        for image_id, feature in wanted:
            gathered[site, image_id].append(feature)
    return {key: np.unique(np.array(features, np.int64)) for key, features in gathered.items()}


def collect_maps(codes: pa.Table, wanted: Wanted, maps: FoundMaps, grids: dict[Site, tuple[int, int]]) -> None:
    """Add to `maps` the maps of `wanted` that this part of the codes table holds, and to `grids` its sites' grids."""
    sites: dict[tuple[Any, ...], Site] = {}
    for batch in codes.to_batches():
        columns = {name: batch.column(name) for name in CODE_COLUMNS}
        keys = zip(*(columns[name].to_pylist() for name in ("image_id", *SITE_COLUMNS)), strict=True)
        shapes = zip(*(columns[name].to_pylist() for name in ("height", "width", "k")), strict=True)
        feature = columns["feature"].values.to_numpy(zero_copy_only=False)
        value = columns["value"].values.to_numpy(zero_copy_only=False)
        offsets = columns["feature"].offsets.to_numpy()
        value_offsets = columns["value"].offsets.to_numpy()
        for row, ((image_id, *place), (height, width, k)) in enumerate(zip(keys, shapes, strict=True)):
            site = sites.setdefault(tuple(place), site_of(**dict(zip(SITE_COLUMNS, place, strict=True))))
            grids.setdefault(site, (height, width))
            features = wanted.get((site, image_id))
            if features is None:
                continue
            used = slice(offsets[row], offsets[row + 1])
            values = value[value_offsets[row] : value_offsets[row + 1]]
            packed = pack(feature[used], values, k, features)
            for number, text in zip(features.tolist(), packed, strict=True):
                maps[site, image_id, number] = HeatMap(height, width, text)


def pack(feature: NDArray[np.uint32], value: NDArray[np.float16], k: int, wanted: NDArray[np.int64]) -> list[str]:
    """The maps of the features `wanted` (sorted, distinct) in one image's code, each as base64.

    A map is a row of byte pairs, one an active cell in row-major order: the distance from the cell before (from -1 at
    the start) and the activation in 255ths of the map's largest, rounded up. A pair with activation 0 only moves on,
    for distances over 255.

    Args:
        feature, value: [cells * k] as in `gazetteer.data.tables.codes.SparseMap`.
    """
    slot = np.searchsorted(wanted, feature)
    slot[slot == len(wanted)] = 0
    active = np.flatnonzero((wanted[slot] == feature) & (value != 0))
    active = active[np.argsort(slot[active], kind="stable")]
    owner, cell = slot[active], active // k
    strength = np.abs(value[active].astype(np.float32))
    peak = np.zeros(len(wanted), np.float32)
    np.maximum.at(peak, owner, strength)
    level = np.ceil(255.0 * strength / peak[owner]).astype(np.int64).clip(1, 255)
    gap = np.diff(cell, prepend=-1)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    gap[first] = cell[first] + 1
    moves = (gap - 1) // 255
    at = np.cumsum(moves + 1) - 1
    pairs = np.zeros((int(at[-1]) + 1 if len(at) else 0, 2), np.uint8)
    pairs[:, 0] = 255
    pairs[at, 0] = gap - 255 * moves
    pairs[at, 1] = level
    length = np.bincount(owner, weights=moves + 1, minlength=len(wanted)).astype(np.int64)
    ends = np.cumsum(length)
    content = pairs.tobytes()
    return [
        base64.b64encode(content[2 * (end - size) : 2 * end]).decode("ascii")
        for end, size in zip(ends.tolist(), length.tolist(), strict=True)
    ]
