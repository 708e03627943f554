"""Which thresholds of labels would have named how many features, and how often rightly, on pictures to choose them by.

Every tested pair of a run is judged as a label is (labeling/quality/accuracy.py), and the rule of
labeling/rules/kinds/decide.py is asked again of candidates.parquet with other thresholds: no picture is looked at
twice. The evidence (q, lift, pictures with both) stays as the run was labelled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.site_codes import rows_by_site
from gazetteer.labeling.quality.accuracy import own_and_best_other
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.explained import Explained

GRID: dict[str, tuple[float, ...]] = {
    "min_precision": (0.1, 0.15, 0.2, 0.25),
    "min_specificity": (0.1, 0.2, 0.3, 0.4),
    "part_precision": (0.3, 0.4, 0.5),
    "part_lift": (2.0, 3.0),
    "part_recall": (0.05, 0.1),
}
"""The thresholds that are tried, and their values; the run's own stand beside them."""

COLUMNS = [
    *SITE_COLUMNS, "feature", "concept", "kind", "images_both", "dataset_iou", "recall", "lift", "q_value",
    "where_q_value", "mass_precision", "explained", "specificity",
]  # fmt: skip
"""What is read of candidates.parquet."""


def tried_thresholds(
    candidates: pa.Table,
    truth: Mapping[Site, Explained],
    config: LabelConfig,
    shown: Collection[str],
    grid: Mapping[str, Sequence[float]] = GRID,
) -> list[dict[str, Any]]:
    """Thresholds that no others of the grid beat in both number and share of right labels, and the run's own
    where its ``min_specificity`` is above 0.

    Args:
        candidates: schemas.CANDIDATES, at least `COLUMNS`, of a run that was labelled with `config`.
        truth: what explains the features of every site on pictures of the tuning half.
        shown: concepts that some of these pictures shows; what names others is not judged.
        grid: values by the name of a threshold; of ``min_specificity`` above 0.
    Returns:
        from most labels to fewest, ``labels`` (features best labelled with where something is), ``right`` (their
        share; None without a label), ``own`` (whether these are the run's) and every threshold by its name.
    """
    rows, right = _judged(candidates, truth, shown)
    column = {name: rows[name].to_numpy(zero_copy_only=False) for name in COLUMNS if name not in SITE_COLUMNS}
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    own = {name: getattr(config, name) for name in grid}
    tried = []
    # Without a lead over its rivals a pair that passes need not be its feature's best: only the run itself knows.
    alone = [own] if replace(config, **own).min_specificity > 0.0 else []
    for setting in [*alone, *(setting for setting in settings if setting != own)]:
        labelled = best_labels(column, replace(config, **setting))
        share = round(float(right[labelled].mean()), 4) if labelled.any() else None
        tried.append({"labels": int(labelled.sum()), "right": share, "own": setting == own, **setting})
    return sorted(_unbeaten(tried), key=lambda row: -row["labels"])


def best_labels(column: Mapping[str, NDArray], config: LabelConfig) -> NDArray[np.bool_]:
    """Which pairs of a feature and a concept are the feature's best label with these thresholds, spatial ones alone.

    With a ``min_specificity`` above 0, by which no two explanations of a feature can be ahead of each other.

    column: of `COLUMNS` without the site, by name; what is undefined is NaN and passes no comparison.
    """
    goes = (column["q_value"] <= config.max_q) & (column["lift"] >= config.min_lift)
    goes &= column["images_both"] >= config.min_images
    small = column["recall"] < config.part_recall
    part = small & (column["mass_precision"] >= config.part_precision) & (column["lift"] >= config.part_lift)
    where = (column["kind"] != "scene") & (column["where_q_value"] <= config.max_q)
    passes: NDArray[np.bool_] = goes & where & np.where(small, part, column["dataset_iou"] >= config.min_dataset_iou)
    passes &= (column["mass_precision"] >= config.min_precision) & (column["explained"] >= config.min_explained)
    return passes & (column["specificity"] >= config.min_specificity)


def _judged(
    candidates: pa.Table, truth: Mapping[Site, Explained], shown: Collection[str]
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The spatial pairs of shown concepts at the sites of `truth`, and whether each would be a right label."""
    told = pc.and_(
        pc.is_in(candidates["kind"], pa.array(sorted(SPATIAL_KINDS))),
        pc.is_in(candidates["concept"], pa.array(sorted(shown))),
    )
    pairs = candidates.select(COLUMNS).filter(told)
    parts = [(pairs.take(pa.array(rows)), truth[site]) for site, rows in rows_by_site(pairs).items() if site in truth]
    if not parts:
        return pairs.slice(0, 0), np.zeros(0, np.bool_)
    right = [own > other for own, other in (own_and_best_other(part, explained) for part, explained in parts)]
    return pa.concat_tables([part for part, _ in parts]), np.concatenate(right)


def _unbeaten(tried: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The run's own, and whatever has more right labels in share than all that have as many or more."""
    best = -1.0
    for row in sorted(tried, key=lambda row: (-row["labels"], -(row["right"] or 0.0))):
        ahead = row["right"] is not None and row["right"] > best
        if ahead or row["own"]:
            yield row
        if ahead:
            best = row["right"]


def print_thresholds(tried: Sequence[Mapping[str, Any]]) -> None:
    """The thresholds as text."""
    print("thresholds that none beats in both number and share of right labels, and the run's own (*):")
    for row in tried:
        said = ", ".join(f"{name} {value:g}" for name, value in row.items() if name not in ("labels", "right", "own"))
        share = "none" if row["right"] is None else f"{row['right']:.1%} right"
        print(f" {'*' if row['own'] else ' '}{row['labels']:>7} labels, {share}: {said}")
