"""Scores become components.parquet: which rows of which modules carry a concept or write a feature."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gazetteer.attribution.objective.problem import Scores
from gazetteer.attribution.scores.loading import FILE
from gazetteer.attribution.scores.selection import Chosen
from gazetteer.data.core.files.atomic import replaced_file
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.tables.provenance import with_provenance
from gazetteer.data.tables.schemas import COMPONENTS


def component_rows(
    scores: Scores,
    chosen: Chosen,
    *,
    estimator: str,
    objective: str,
    concept: str | None = None,
    site: Site | None = None,
    feature: int | None = None,
) -> list[dict[str, Any]]:
    """One row per output row of each scored parameter: the sum of its weights' α, its sign, and how many were chosen.

    Args:
        scores: α per weight, shapes [rows, ...].
        chosen: flat indices of the weights an edit takes.
        concept: or `feature` with its site, whichever J was about.
    """
    place: dict[str, Any] = dict.fromkeys(SITE_COLUMNS) if site is None else site.columns()
    rows = []
    for name in sorted(scores):
        table = scores[name].double().flatten(1)
        picked = torch.zeros(table.numel())
        picked[chosen.get(name, torch.empty(0, dtype=torch.int64))] = 1
        counts = picked.view_as(table).sum(1).long().tolist()
        for row, (score, count) in enumerate(zip(table.sum(1).tolist(), counts, strict=True)):
            rows.append(
                {
                    "concept": concept, **place, "feature": feature,
                    "module": name.removesuffix(".weight"), "row": row, "weights": table.shape[1], "chosen": count,
                    "score": score, "sign": (score > 0) - (score < 0), "estimator": estimator, "objective": objective,
                }
            )  # fmt: skip
    return rows


def write_components(
    folder: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], provenance: dict[str, Any]
) -> Path:
    """Write ``FOLDER/components.parquet``, whole or not at all; returns its path."""
    path = Path(folder) / FILE
    table = with_provenance(pa.Table.from_pylist([dict(row) for row in rows], schema=COMPONENTS), provenance)
    with replaced_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return path
