"""Scores become components.parquet: which rows of which modules carry a concept or write a feature."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gazetteer.attribution.objective.problem import Scores
from gazetteer.attribution.scores.loading import FILE, load_components
from gazetteer.attribution.scores.same import refuse_others
from gazetteer.attribution.scores.selection import Chosen
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replaced_file
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.storage.lock import alone
from gazetteer.data.tables.provenance import read_provenance, with_provenance
from gazetteer.data.tables.schemas import COMPONENTS

TOLD_BY = ["concept", *SITE_COLUMNS, "feature", "objective", "estimator"]
"""Columns by which rows of several calls are told apart."""
NONE = "none_taken"
"""Stands in the ``config`` of a call by whose scores no weight could be taken: no edit goes with them."""
_PARTS = ("fingerprint", "config")
"""Of the provenance of a table."""


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


def require_room(
    folder: str | os.PathLike[str],
    provenance: Mapping[str, Any],
    told_by: Sequence[str],
    unsettled: Collection[str] = (),
) -> None:
    """Look, before hours are spent, for a table that `write_components` must not add to.

    Args:
        provenance: as far as it is known.
        told_by: keys of its ``config`` by which calls are told apart whose rows stand side by side.
        unsettled: keys of its ``config`` that are not known yet.

    Raises:
        InputError: the table there is of another command, model or schema, or has rows of a call that is told from
            this one by none of these keys and had other settings, unless nothing was taken by it (`NONE`).
    """
    path = Path(folder) / FILE
    if not path.exists():
        return
    stored, now = read_provenance(path, *_PARTS), provenance["config"]
    if ("run" in stored["config"]) != ("run" in now) or not load_components(path).schema.equals(COMPONENTS):
        raise InputError(f"{path} is of another command or version; give another --out.")
    refuse_others(path, {"fingerprint": stored["fingerprint"]}, provenance)
    for call in _calls(path, stored):
        if not call.get(NONE) and _alike(call, now, told_by):
            refuse_others(path, {"config": call}, provenance, unsettled)


def write_components(
    folder: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    provenance: dict[str, Any],
    told_by: Sequence[str],
) -> Path:
    """Write ``FOLDER/components.parquet``, whole or not at all; returns its path.

    Rows of other concepts, features, objectives and estimators that are there stay; the settings of the calls that
    gave them stand under ``others`` in the provenance. Calls side by side add to it one at a time.

    Raises:
        InputError: as `require_room`, by what another call has written meanwhile.
    """
    path, table = Path(folder) / FILE, pa.Table.from_pylist([dict(row) for row in rows], schema=COMPONENTS)
    with alone(path.with_name(".components.lock")):
        require_room(folder, provenance, told_by)
        if path.exists():
            before, ours = load_components(path), {tuple(row.values()) for row in table.select(TOLD_BY).to_pylist()}
            kept = before.filter(
                pa.array([tuple(row.values()) not in ours for row in before.select(TOLD_BY).to_pylist()], pa.bool_())
            )
            now = json.loads(json.dumps(provenance["config"]))
            calls = _calls(path, read_provenance(path, *_PARTS)) if kept.num_rows else []
            others = [call for call in calls if call != now and not (call.get(NONE) and _alike(call, now, told_by))]
            table = pa.concat_tables([kept, table])
            provenance = {**provenance, "config": {**now, **({"others": others} if others else {})}}
        with replaced_file(path) as partial:
            pq.write_table(with_provenance(table, provenance), partial, compression="zstd")
    return path


def _alike(call: Mapping[str, Any], now: Mapping[str, Any], told_by: Sequence[str]) -> bool:
    """Whether rows of two calls cannot stand side by side."""
    return all(call.get(key) == now.get(key) for key in told_by)


def _calls(path: Path, provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of every call that a table has rows of."""
    config = dict(provenance["config"])
    others = config.pop("others", [])
    if not isinstance(others, list) or not all(isinstance(call, dict) for call in others):
        raise InputError(f"{path} does not say any more of which calls its rows are; give another --out.")
    return [*others, config]
