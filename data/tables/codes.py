"""The sparse code of one image at one site: k (feature, value) pairs for every grid cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.schemas import CODES


@dataclass(frozen=True)
class SparseMap:
    """One image's code at one site.

    Attributes:
        height, width: grid size in cells.
        k: pairs per cell.
        feature: uint32 [height*width*k], row-major cells, k features per cell.
        value: float16 [height*width*k], activations; value 0 marks an unused slot. Of given pictures those of a
            cell that is mostly marked to be ignored have a minus sign: the feature fires there as strongly as the
            number says, but nobody decided what there is.
        cut: active features, over all cells, that found no slot (the weakest of their cells); in no table.
    """

    height: int
    width: int
    k: int
    feature: np.ndarray
    value: np.ndarray
    cut: int = 0


@dataclass(frozen=True, order=True)
class Moment:
    """When a site was captured: 0-based sampler `step` and the scheduler's `timestep`, not always a whole number."""

    step: int
    timestep: float


def codes_table(
    image_ids: Sequence[str], codes: Sequence[Mapping[Site, SparseMap]], moments: Mapping[Site, Moment]
) -> pa.Table:
    """The `codes` rows (schemas.CODES) of images in the order given, sites sorted within an image."""
    rows: list[dict[str, object]] = []
    for image_id, maps in zip(image_ids, codes, strict=True):
        for site in sorted(maps):
            code, moment = maps[site], moments[site]
            rows.append(
                {
                    "image_id": image_id,
                    **site.columns(),
                    "step": moment.step,
                    "timestep": moment.timestep,
                    "height": code.height,
                    "width": code.width,
                    "k": code.k,
                    "feature": code.feature,
                    "value": code.value,
                }
            )
    return pa.Table.from_pylist(rows, schema=CODES)
