"""Examiners: measures of a label that took no part in choosing it, and which of them knows what is true.

    held-out IoU      of the pictures that chose nothing (`heldout_dataset_iou`; `heldout_explained` for every kind)
    fresh AUROC       pictures made from the label's name against pictures made from the other names: the chance that
                      the feature, by its summed activation, is stronger in one of the first (CoSy, arXiv 2405.20331)
    witness AUROC     the same between held-out pictures in which a second witness, a classifier, sees the concept or
                      look and those in which it does not; the witness is no part of the detector
    causal verdict    of `gazetteer causal`

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
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.quality.intervals import as_interval, bootstrap

Floats = NDArray[np.float64]

KEYS = (*SITE_COLUMNS, "feature", "concept", "kind")
MEASURES = ("heldout_dataset_iou", "heldout_explained", "fresh_auroc", "witness_auroc", "causal_verdict")


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


def examined(table: pa.Table) -> dict[str, Any]:
    """How well each examiner predicts which labels are right.

    Args:
        table: schemas.EXAMINERS.
    Returns:
        By examiner ``labels`` (that it says something of), their share ``right``, and ``auroc``: [value, low, high],
        the chance that it ranks a right label above a wrong one, with its bootstrap interval over labels; a verdict
        counts 1 when confirmed, -1 when contradicted, else 0. Empty where no truth is known.
    """
    if table.num_rows == 0 or table["right"].null_count == table.num_rows:
        return {}
    right = np.array(table["right"].to_pylist(), object)
    result: dict[str, Any] = {}
    for name in MEASURES:
        raw = table[name].to_pylist()
        worth = {"confirmed": 1.0, "contradicted": -1.0}
        values = np.array([np.nan if v is None else worth.get(v, 0.0) if isinstance(v, str) else v for v in raw], float)
        known = np.array([answer is not None for answer in right]) & ~np.isnan(values)
        yes = right[known].astype(bool)
        result[name] = {
            "labels": int(known.sum()), "right": round(float(yes.mean()), 4) if known.any() else None,
            "auroc": _interval(values[known], yes),
        }  # fmt: skip
    return result


def _interval(values: Floats, right: NDArray[np.bool_]) -> list[float | None]:
    def statistic(weights: Floats) -> Floats:
        return np.array([_weighted_auroc(values, right, row) for row in weights])

    if not right.any() or right.all():
        return [None] * 3
    interval = as_interval(bootstrap(statistic, len(values), resamples=300))
    return [None if end is None else round(end, 4) for end in interval]


def _weighted_auroc(values: Floats, right: NDArray[np.bool_], weights: Floats) -> float:
    drawn = np.repeat(np.arange(len(values)), weights.astype(np.int64))
    return auroc(values[drawn], right[drawn])


def print_examined(result: Mapping[str, Any]) -> None:
    """The examiners, and saev's measures, as text."""
    print(f"{result['labels']} labels examined; {result['table']}")
    print_aurocs(result["examiners"])
    print("best feature per concept, chosen on discovery cells, on held-out cells (as saev measures):")
    for site in result["retrieval"]:
        numbers = (site[name] for name in ("map", "purity_at_16", "coverage"))
        print(f"  {site['site']:<44}" + "  ".join("none" if n is None else f"{n:.3f}" for n in numbers))


def print_aurocs(examiners: Mapping[str, Any]) -> None:
    """What `examined` says, as text; nothing where no truth is known."""
    if examiners:
        print("which examiner knows a right label from a wrong one (AUROC over labels, 95 % interval):")
    for name, row in examiners.items():
        value, low, high = row["auroc"]
        said = "no wrong or no right label" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
        print(f"  {name:<22}{said}  ({row['labels']} labels)")
