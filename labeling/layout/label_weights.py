"""What tables of labels say of where things are: the weights of features, and what is common where they fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import logit

from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.regular import require_file
from gazetteer.data.core.sites import SIGNALS, SITE_COLUMNS, STREAMS, Site
from gazetteer.data.tables.schemas import SPATIAL_KINDS
from gazetteer.labeling.evidence.site_codes import rows_by_site

MAX_Q = 0.05
"""Highest false discovery rate of a candidate that counts."""

_COLUMNS = (*SITE_COLUMNS, "feature", "concept", "precision", "lift", "dataset_iou")
_NUMBERS = ("precision", "lift", "dataset_iou", "q_value")
_SHARES = ("precision", "dataset_iou", "q_value")
"""Those of them that are at most 1."""
_NAMES = ("block", "stream", "signal", "branch", "concept")
ROUNDING = 1e-3
"""By how much a share may exceed 1."""
SHARE = (1e-3, 1.0 - 1e-3)
_TESTED = "trusted"
"""The column by which a table of candidates is known."""


@dataclass(frozen=True)
class Habits:
    """What is common where features fire, whatever the picture.

    Attributes:
        features: int64 [H], ascending.
        odds: float64 [H, C], log odds of precision / lift; 0 where the pair never met, or without lift.
        known: float64 [H, C], 1 where there are such odds.
    """

    features: NDArray[np.int64]
    odds: NDArray[np.float64]
    known: NDArray[np.float64]


@dataclass(frozen=True)
class LabelWeights:
    """What the labels of a site say.

    Attributes:
        features: int64 [F], ascending.
        weights: float64 [F, C], 0 without a label.
        base: float64 [C], the share of its cells that shuffled pictures give to the concept (precision / lift), mean
            over its labels; 0 without one.
        best: summed over concepts, the highest `dataset_iou` of a label.
        habits: of a table of candidates, else None.
    """

    features: NDArray[np.int64]
    weights: NDArray[np.float64]
    base: NDArray[np.float64]
    best: float
    habits: Habits | None = None


def read_label_table(path: str | Path) -> pa.Table:
    """A labels.parquet or candidates.parquet, wherever it lies.

    Raises:
        InputError: no such file, not Parquet, or without the columns that a layout reads.
    """
    require_file("The table of labels", path, "a labels.parquet or candidates.parquet")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table of labels: {first_line(error)}") from error
    return complete_labels(table, str(path))


def complete_labels(table: pa.Table, called: str = "The table of labels") -> pa.Table:
    """The table with all columns that a layout reads.

    Raises:
        InputError: without one; `called` is what the table is called then.
    """
    for name, usual in (("stream", STREAMS[0]), ("signal", SIGNALS[0])):
        if name not in table.column_names:  # written before there were others
            table = table.append_column(name, pa.array([usual] * table.num_rows, pa.string()))
    needed = (*_COLUMNS, *(("kind", "q_value") if _TESTED in table.column_names else ()))
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise InputError(f"{called} has no column {missing[0]!r}; a layout needs {', '.join(needed)}.")
    return table


def columns_of(name: str) -> list[str]:
    """What is read of a run's table ``labels`` or ``candidates``."""
    return [*_COLUMNS, "kind", "q_value", *([_TESTED] if name == "candidates" else [])]


def spatial_labels(labels: pa.Table) -> pa.Table:
    """The rows that say where something is: of kinds, where the table tells them apart, those of `SPATIAL_KINDS`.

    Of candidates those that go together beyond chance.
    """
    if "kind" in labels.column_names:
        labels = labels.filter(pc.is_in(labels["kind"], pa.array(SPATIAL_KINDS)))
    if _TESTED in labels.column_names:
        sure = pc.and_(pc.less_equal(labels["q_value"], MAX_Q), pc.greater(labels["lift"], 1.0))
        labels = labels.filter(pc.fill_null(sure, False))
    return labels


def label_concepts(labels: pa.Table) -> tuple[str, ...]:
    """The concepts of spatial labels, sorted."""
    return tuple(sorted(set(spatial_labels(labels)["concept"].to_pylist())))


def label_weights(labels: pa.Table, concepts: Sequence[str] | None = None) -> dict[Site, LabelWeights]:
    """The weights of every site with a spatial label.

    Args:
        labels: columns block, branch, t, feature, concept, precision, lift and dataset_iou; `spatial_labels` count.
        concepts: the axis of the weights; None takes `label_concepts`.
    Returns:
        by site; sites without such a label are left out.
    Raises:
        InputError: a column is missing, names or feature numbers that are none, or a precision or lift that cannot be.
    """
    labels = complete_labels(labels)
    _require_names(labels)
    _require_numbers(labels)
    every, labels = labels, spatial_labels(labels).select(list(_COLUMNS))
    names = sorted(set(labels["concept"].to_pylist())) if concepts is None else list(concepts)
    habits = _habits(every, names) if _TESTED in every.column_names else {}
    if concepts is not None:
        labels = labels.filter(pc.is_in(labels["concept"], pa.array(names, pa.string())))
    number = {name: i for i, name in enumerate(names)}
    weights_of = {}
    for site, rows in rows_by_site(labels).items():
        own = labels.take(pa.array(rows))
        column = np.array([number[name] for name in own["concept"].to_pylist()], np.int64)
        precision, lift, iou = (np.asarray(own[n], np.float64) for n in ("precision", "lift", "dataset_iou"))
        if not (np.isfinite(precision).all() and (precision >= 0).all() and (lift > 0).all()):
            raise InputError(f"The labels of {site.slug} hold a precision or lift that is no number above 0.")
        features, row = np.unique(np.asarray(own["feature"]), return_inverse=True)
        expected = _shuffled(precision, lift, site)
        weights, best = np.zeros((len(features), len(names))), np.zeros(len(names))
        weights[row, column] = logit(np.clip(precision, *SHARE)) - logit(expected)
        np.maximum.at(best, column, np.nan_to_num(iou))
        total, count = np.bincount(column, expected, len(names)), np.bincount(column, minlength=len(names))
        base = total / np.maximum(count, 1)
        weights_of[site] = LabelWeights(
            features.astype(np.int64), weights, base, float(best.sum()), habits.get(site)
        )  # fmt: skip
    return weights_of


def _shuffled(precision: NDArray[np.float64], lift: NDArray[np.float64], site: Site) -> NDArray[np.float64]:
    """The precision that shuffled pictures give, kept between the ends of `SHARE`; InputError where it exceeds 1."""
    expected = precision / lift
    wrong = np.flatnonzero(expected > 1 + ROUNDING)
    if len(wrong):
        raise InputError(
            f"The labels of {site.slug} hold a precision of {precision[wrong[0]]:g} with a lift of "
            f"{lift[wrong[0]]:g}, by which shuffled pictures would give {expected[wrong[0]]:g}; that is at most 1."
        )
    share: NDArray[np.float64] = np.clip(expected, *SHARE)
    return share


def _require_names(labels: pa.Table) -> None:
    """InputError where a site or concept is no text or has no name: it would become one."""
    for name in _NAMES:
        kind = labels[name].type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if labels.num_rows and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"The column {name!r} of the labels is {kind}; accepted: text.")
        if labels[name].null_count or (labels.num_rows and "" in labels[name].unique().to_pylist()):
            raise InputError(f"The labels hold a row without {name}; every row names one.")


def _require_numbers(labels: pa.Table) -> None:
    """InputError where a table says a number by text, or by one that cannot be: it would be believed.

    Null and NaN stand for what a kind of label does not have; a feature and a t every label has.
    """
    if not pa.types.is_integer(labels["feature"].type):
        raise InputError(f"The column 'feature' of the labels is {labels['feature'].type}; accepted: whole numbers.")
    for name in ("feature", "t", *(column for column in _NUMBERS if column in labels.column_names)):
        kind = labels[name].type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise InputError(f"The column {name!r} of the labels is {kind}; accepted: numbers.")
        values = np.asarray(labels[name].cast(pa.float64()), np.float64)
        if name in ("feature", "t") and np.isnan(values).any():
            raise InputError(f"The labels hold a row without {name}; every row names one.")
        most = 1.0 if name in _SHARES else np.inf
        wrong = values[np.isinf(values) | (values < 0) | (values > most + ROUNDING)]
        if len(wrong):
            accepted = "numbers from 0 to 1" if most == 1 else "finite numbers from 0"
            raise InputError(f"The labels hold a {name} of {wrong[0]:g}; accepted: {accepted}.")


def _habits(candidates: pa.Table, names: Sequence[str]) -> dict[Site, Habits]:
    """By site what every tested pair says of its feature's places."""
    known = pc.and_(pc.is_in(candidates["concept"], pa.array(names, pa.string())), pc.greater(candidates["lift"], 0.0))
    known = pc.and_(known, pc.is_finite(candidates["precision"]))
    spatial = pc.is_in(candidates["kind"], pa.array([*SPATIAL_KINDS, "scene"]))
    rows = candidates.filter(pc.fill_null(pc.and_(known, spatial), False))
    number, rows_of = {name: i for i, name in enumerate(names)}, {}
    for site, places in rows_by_site(rows).items():
        own = rows.take(pa.array(places))
        column = np.array([number[name] for name in own["concept"].to_pylist()], np.int64)
        features, row = np.unique(np.asarray(own["feature"]), return_inverse=True)
        share = _shuffled(np.asarray(own["precision"], np.float64), np.asarray(own["lift"], np.float64), site)
        odds, present = np.zeros((2, len(features), len(names)))
        odds[row, column], present[row, column] = logit(share), 1.0
        rows_of[site] = Habits(features.astype(np.int64), odds, present)
    return rows_of
