"""Examiners: measures of a label that took no part in choosing it, and which of them knows what is true.

    held-out IoU      of the pictures that chose nothing (`heldout_dataset_iou`; `heldout_explained` for every kind)
    fresh AUROC       pictures made from the label's name against pictures made from the other names: the chance that
                      the feature, by its summed activation, is stronger in one of the first (CoSy, arXiv 2405.20331)
    witness AUROC     the same between held-out pictures in which a second witness, a classifier, sees the concept or
                      look and those in which it does not; the witness is no part of the detector
    causal verdict    of `gazetteer causal`, and beside it the rise of the area by which it was reached (`causal_area`):
                      switched on, does the feature make more of what it is called than random features do?

Where exact truth is known (labeling/quality/accuracy.py), `examined` says how well each predicts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import rankdata

from gazetteer.data.core.sites import SITE_COLUMNS
from gazetteer.data.core.terminal import print_table
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.quality.intervals import as_interval, interval_of, sample_weights, say_of_others

Floats = NDArray[np.float64]

KEYS = (*SITE_COLUMNS, "feature", "concept", "kind")
MEASURES = ("heldout_dataset_iou", "heldout_explained", "fresh_auroc", "witness_auroc", "causal_verdict")
CAUSAL_AREA = "causal_area"
WORTH = {"confirmed": 1.0, "no effect": 0.0, "contradicted": -1.0}
"""What a verdict counts; any other, as ``undecided``, says nothing of the label."""
COMPARED = 0.5
"""An examiner is compared with the others when it speaks of at least this share of the labels they all speak of."""

Row = dict[str, Any]


def picture_scores(codes: SiteCodes, features: NDArray[np.int64]) -> Floats:
    """Summed activation of some features in every picture of the codes: float64 [pictures, features]."""
    order = np.argsort(features, kind="stable")
    at = np.minimum(np.searchsorted(features[order], codes.feature), max(len(features) - 1, 0))
    own = np.flatnonzero(features[order][at] == codes.feature) if len(features) else np.zeros(0, np.int64)
    shape = (len(codes.image_ids), len(features))
    summed = sp.csr_array((codes.value[own].astype(np.float64), (codes.image[own], order[at[own]])), shape)
    return np.asarray(summed.toarray())


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores higher than a negative, ties counted half; NaN without both."""
    yes, no = int(positive.sum()), int((~positive).sum())
    if not yes or not no:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def label_aurocs(
    labels: Sequence[Mapping[str, Any]],
    codes: SiteCodes,
    positive: Mapping[str, NDArray[np.bool_]],
    pictures: NDArray[np.int64],
) -> Floats:
    """AUROC of each label's feature for the pictures in which its name is positive: float64 [labels].

    Args:
        labels: rows with `feature` and `concept`, all of the site of `codes`.
        positive: by name bool [P]; a label whose name is missing has NaN.
        pictures: int64 [P], which pictures of the codes these are.
    """
    features = np.unique(np.array([row["feature"] for row in labels], np.int64))
    scores = picture_scores(codes, features)[pictures]
    aurocs = np.full(len(labels), np.nan)
    for number, row in enumerate(labels):
        if row["concept"] in positive:
            column = int(np.searchsorted(features, row["feature"]))
            aurocs[number] = auroc(scores[:, column], positive[row["concept"]])
    return aurocs


def examined(table: pa.Table, areas: Sequence[float | None] | None = None) -> dict[str, Row]:
    """How well each examiner predicts which labels are right.

    Args:
        table: schemas.EXAMINERS.
        areas: `causal_area` of every row's label, None where it was not tried.
    Returns:
        By examiner ``labels`` (that it says something of), their share ``right``, and ``auroc``: [value, low, high],
        the chance that it ranks a right label above a wrong one, with its bootstrap interval over concepts
        (`WORTH` of verdicts). ``same`` is the AUROC over those ``same_labels`` of which every examiner says something:
        there they can be compared. One that speaks of fewer than `COMPARED` of what the others speak of would shrink
        them to its own, so it is left out: ``same_labels`` 0. Empty where no truth is known.
    """
    if table.num_rows == 0 or table["right"].null_count == table.num_rows:
        return {}
    told = {name: _values(table[name].to_pylist()) for name in MEASURES}
    told[CAUSAL_AREA] = _values(areas or [None] * table.num_rows)
    concept = np.unique(np.array(table["concept"].to_pylist(), np.str_), return_inverse=True)[1]
    known = np.array([answer is not None for answer in table["right"].to_pylist()])
    right = np.array([answer is True for answer in table["right"].to_pylist()])
    speaking = {name: known & ~np.isnan(values) for name, values in told.items()}
    compared, same = _compared(speaking)
    result: dict[str, Row] = {}
    for name, values in told.items():
        own = speaking[name]
        spoken, beside = own.any(), name in compared
        result[name] = {
            "labels": int(own.sum()), "right": round(float(right[own].mean()), 4) if spoken else None,
            "auroc": _interval(values[own], right[own], concept[own]),
            "same_labels": int(same.sum()) if beside else 0,
            "same": _interval(values[same], right[same], concept[same]) if beside else [None] * 3,
        }  # fmt: skip
    return result


def _compared(speaking: Mapping[str, NDArray[np.bool_]]) -> tuple[set[str], NDArray[np.bool_]]:
    """The examiners that are compared, from the one that speaks of most labels on, and the labels all of them know."""
    most = sorted(speaking, key=lambda name: -int(speaking[name].sum()))
    compared, same = {most[0]}, speaking[most[0]]
    for name in most[1:]:
        both = same & speaking[name]
        if both.any() and both.sum() >= COMPARED * same.sum():
            compared, same = compared | {name}, both
    return compared, same


def _values(told: Sequence[Any]) -> Floats:
    """Of numbers themselves, of verdicts what they are worth, NaN for nothing."""
    worth = [WORTH.get(value) if isinstance(value, str) else value for value in told]
    return np.array([np.nan if value is None else value for value in worth], np.float64)


def _interval(values: Floats, right: NDArray[np.bool_], concept: NDArray[np.int64]) -> list[float | None]:
    def statistic(weights: Floats) -> Floats:
        return np.array([_weighted_auroc(values, right, row) for row in weights])

    if not len(right) or not right.any() or right.all():
        return [None] * 3
    interval = as_interval(interval_of(statistic(sample_weights(len(values), 300, groups=concept))))
    value, *ends = (None if end is None else round(end, 4) for end in interval)
    return [value, *(ends if say_of_others(np.ones(len(values), bool), concept) else (None, None))]


def _weighted_auroc(values: Floats, right: NDArray[np.bool_], weights: Floats) -> float:
    drawn = np.repeat(np.arange(len(values)), weights.astype(np.int64))
    return auroc(values[drawn], right[drawn])


def print_examined(result: Mapping[str, Any]) -> None:
    """The examiners, and saev's measures, as text."""
    print(f"{result['labels']} labels examined; {result['table']}")
    print_aurocs(result["examiners"])
    print("\nbest feature per concept, chosen on discovery cells, on held-out cells (as saev measures):")
    print_table(
        {"site": "", "mAP": ".3f", "purity@16": ".3f", "coverage": ".3f"},
        ([site[name] for name in ("site", "map", "purity_at_16", "coverage")] for site in result["retrieval"]),
    )


def print_aurocs(examiners: Mapping[str, Any]) -> None:
    """What `examined` says, as text; nothing where no truth is known."""
    if examiners:
        print("which examiner knows a right label from a wrong one (AUROC over labels, 95 % interval):")
    print_table(
        {"examiner": "", "AUROC": ">", "labels": "d"},
        ((name, _known(row["auroc"]), row["labels"]) for name, row in examiners.items()),
    )
    of = next((row for row in examiners.values() if row["same"][0] is not None), None)
    if of is not None and of["same_labels"] < max(row["labels"] for row in examiners.values()):
        spoken = ((name, row["same"][0]) for name, row in examiners.items() if row["same"][0] is not None)
        listed = ", ".join(f"{name} {value:.3f}" for name, value in spoken)
        few = [name for name, row in examiners.items() if row["labels"] and not row["same_labels"]]
        left = f" ({', '.join(few)} left out: fewer than half of these)" if few else ""
        print(f"on the {of['same_labels']} labels that all of these know: {listed}{left}")


def _known(auroc: Sequence[float | None]) -> str:
    value, low, high = auroc
    if value is None:
        return "no wrong or no right label"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
