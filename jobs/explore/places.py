"""Which features fire at a place of a picture, at every block and t, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import IMAGE, Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import SparseMap
from gazetteer.labeling.atlas.maps import pack
from gazetteer.labeling.atlas.script import figure
from gazetteer.labeling.evidence.site_codes import SITE_COLUMNS, rows_by_site, same_site, site_order

FIRING = 5
"""Features shown a site, those that fire most of their own largest activation first."""


@dataclass(frozen=True)
class Known:
    """What the tables say of the features of one site: number -> name (None: unnamed), and its largest activation."""

    names: dict[int, str | None]
    peaks: dict[int, float]


def read_known(run: RunFolder) -> dict[Site, Known]:
    """By site."""
    table = run.read_final("features", [*SITE_COLUMNS, "feature", "best_label", "max_activation"])
    columns = {name: table[name].to_pylist() for name in ("feature", "best_label", "max_activation")}
    known = {}
    for site, rows in rows_by_site(table).items():
        numbers = [columns["feature"][row] for row in rows]
        names = dict(zip(numbers, (columns["best_label"][row] for row in rows), strict=True))
        peaks = dict(zip(numbers, (columns["max_activation"][row] or 0.0 for row in rows), strict=True))
        known[site] = Known(names, peaks)
    return known


def features_at(
    codes: dict[Site, SparseMap], known: dict[Site, Known], x: float, y: float, most: int = FIRING
) -> list[dict[str, Any]]:
    """What fires in the cells at (x, y), as shares of width and height, site by site in table order.

    Sites of the text stream are left out: their cells are words, which lie nowhere in a picture.

    Of each feature: its number, name, activation there, what share that is of its largest anywhere in the run (None
    where it fired in no picture of it), and its map over the whole picture, packed for the page.
    """
    firing = []
    for site in sorted((site for site in codes if site.stream == IMAGE), key=site_order):
        code = codes[site]
        row, column = min(int(y * code.height), code.height - 1), min(int(x * code.width), code.width - 1)
        about = known.get(same_site(site), Known({}, {}))
        numbers, values = _slots(code, row * code.width + column)
        fractions = np.array(
            [_fraction(float(v), about.peaks.get(int(f), 0.0)) for f, v in zip(numbers, values, strict=True)]
        )
        order = np.argsort(-fractions, kind="stable")[:most]
        chosen = numbers[order]
        packed = _packed(code, chosen)
        firing.append(
            {
                **{"site": site.slug, "active": len(numbers)},
                **site.columns(),
                **{"row": row, "column": column, "height": code.height, "width": code.width},
                "features": [
                    {
                        "feature": int(numbers[i]),
                        "name": about.names.get(int(numbers[i])),
                        "value": figure(float(values[i])),
                        "share": figure(float(fractions[i]), 3) if about.peaks.get(int(numbers[i])) else None,
                        "map": packed[int(numbers[i])],
                    }
                    for i in order
                ],
            }
        )
    return firing


def _fraction(value: float, peak: float) -> float:
    return value / peak if peak > 0 else 0.0


def _slots(code: SparseMap, cell: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The active features of a cell and their activations; one listed twice counts as its sum."""
    used = slice(cell * code.k, (cell + 1) * code.k)
    values = np.asarray(code.value[used], np.float32)
    numbers = np.asarray(code.feature[used], np.int64)[values > 0]
    distinct, where = np.unique(numbers, return_inverse=True)
    return distinct, np.bincount(where, weights=values[values > 0], minlength=len(distinct)).astype(np.float32)


def _packed(code: SparseMap, features: NDArray[np.int64]) -> dict[int, str]:
    wanted = np.unique(features)
    if not len(wanted):
        return {}
    texts = pack(np.asarray(code.feature), np.asarray(code.value), code.k, wanted)
    return dict(zip(wanted.tolist(), texts, strict=True))
