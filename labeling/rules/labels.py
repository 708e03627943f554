"""Evidence becomes statistics of every co-occurring pair of a feature and a concept, with what the nulls say of it.

With I the intersection, A the feature's support and M the concept's unions, all in pixels summed over the
discovery images that were asked for the concept, and E the mean of I when images are shuffled
(labeling/rules/null.py):

    dataset_iou = I / (A + M - I)      precision = I / A      recall = I / M
    null_iou    = E / (A + M - E)      lift      = I / E

The per-image rule (`hits`, `mean_iou`) is counted in labeling/evidence/counts.py. An undefined ratio is null. Which
pairs are trusted, and as what, is decided in labeling/rules/kinds/decide.py.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.tables.schemas import LABELS, PAIRS
from gazetteer.labeling.evidence.site_codes import rows_by_site, site_arrays
from gazetteer.labeling.evidence.view import SplitEvidence, views

Floats = NDArray[np.float64]

WHERE = ("where_lift", "where_p_value", "where_q_value")

NULLS = pa.schema(
    [
        *(PAIRS.field(name) for name in (*SITE_COLUMNS, "feature", "concept")),
        pa.field("p_value", pa.float64(), nullable=False),
        pa.field("q_value", pa.float64(), nullable=False),
        *(PAIRS.field(name) for name in WHERE),
    ]
)
"""What the nulls say: one row per tested pair of a site; `WHERE` is null where the first null was not rejected."""


def _ratio(over: NDArray[np.generic], under: NDArray[np.generic]) -> Floats:
    """over / under, NaN where undefined."""
    top, bottom = np.asarray(over, np.float64), np.asarray(under, np.float64)
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)


def _scores(some: SplitEvidence) -> dict[str, Floats]:
    """The ratios of every pair of a split, NaN where undefined."""
    inter, area, masks = some.intersection, some.area, some.concept_area[some.concept]
    expected = some.expected_intersection()
    return {
        "hit_rate": _ratio(some.hits, some.both),
        "mean_iou": _ratio(some.iou_micro / 1e6, some.both),
        "dataset_iou": _ratio(inter, area + masks - inter),
        "precision": _ratio(inter, area),
        "recall": _ratio(inter, masks),
        "null_iou": _ratio(expected, area + masks - expected),
        "lift": _ratio(inter, expected),
    }


def _keys(some: SplitEvidence, concepts: int) -> NDArray[np.int64]:
    """One integer per pair, ascending in (feature, concept)."""
    return some.features[some.row] * concepts + some.concept


def _place(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where `wanted` stands in ascending `keys`, and whether it does."""
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    return at, keys[at] == wanted if len(keys) else np.zeros(len(wanted), np.bool_)


def _heldout(found: SplitEvidence, other: SplitEvidence | None) -> dict[str, NDArray[np.generic]]:
    """The same scores on held-out images; a pair that never co-occurs there has 0 images and an IoU of 0.

    The IoU is null only where nothing could be measured: no held-out images, or neither feature nor concept
    there.
    """
    size, none = len(found.row), np.full(len(found.row), np.nan)
    result = {"images": np.zeros(size, np.int64), "hit_rate": none, "mean_iou": none, "dataset_iou": none}
    if other is None:
        return result
    count = max(len(found.concepts), 1)
    at, there = _place(_keys(other, count), _keys(found, count))
    if len(other.row):
        scores = _scores(other)
        result["images"] = np.where(there, other.both[at], 0)
        for name in ("hit_rate", "mean_iou", "dataset_iou"):
            result[name] = np.where(there, scores[name][at], np.nan)
    feature, fires = _place(other.features, found.features[found.row])
    area = np.where(fires, other.feature_area[feature], 0) if len(other.features) else np.zeros(size)
    apart = ~there & (area + other.concept_area[found.concept] > 0)
    result["dataset_iou"] = np.where(apart, 0.0, result["dataset_iou"])
    return result


def _column(values: NDArray[np.generic], field: pa.Field) -> pa.Array:
    """Values as the field's type, NaN as null."""
    if field.nullable:
        undefined = np.isnan(values.astype(np.float64))
        return pa.array(np.where(undefined, 0, values), mask=undefined).cast(field.type)
    return pa.array(values).cast(field.type)


def _site_pairs(site: Site, splits: dict[str, SplitEvidence], nulls: pa.Table, model: str) -> pa.Table:
    """The pairs of one site, in table order."""
    found = splits["discovery"]
    scores, held = _scores(found), _heldout(found, splits.get("heldout"))
    count = max(len(found.concepts), 1)
    index = {name: number for number, name in enumerate(found.concepts)}
    tested = nulls["feature"].to_numpy() * count + np.array(
        [index[name] for name in nulls["concept"].to_pylist()], np.int64
    )
    by_key = np.argsort(tested, kind="stable")
    at, there = _place(tested[by_key], _keys(found, count))
    for name in ("p_value", "q_value", *WHERE):
        known = nulls[name].to_numpy()[by_key].astype(np.float64)
        scores[name] = np.where(there, known[at], np.nan) if len(known) else np.full(len(found.row), np.nan)
    order = np.lexsort((found.concept, found.row))
    values: dict[str, NDArray[np.generic]] = {
        "feature": found.features[found.row],
        "images_feature": found.asked, "images_concept": found.concept_images[found.concept],
        "images_both": found.both, "hits": found.hits, **scores,
        **{f"heldout_{name}": column for name, column in held.items()}, "paper_label": found.hits >= 1,
    }  # fmt: skip
    columns: dict[str, pa.Array] = {
        "model": pa.repeat(model, len(order)), **site_arrays(site, len(order)),
        "concept": pa.array(found.concepts, pa.string()).take(pa.array(found.concept[order])),
    }  # fmt: skip
    for name, column in values.items():
        columns[name] = _column(column[order], PAIRS.field(name))
    return pa.Table.from_arrays([columns[name] for name in PAIRS.names], schema=PAIRS)


def make_pairs(evidence: pa.Table, nulls: pa.Table, model: str) -> pa.Table:
    """Every pair that co-occurs in a discovery image, with its statistics.

    Args:
        evidence: summed evidence (schemas.EVIDENCE).
        nulls: p and q of the tested pairs (NULLS, from `significance.pair_significance`).
        model: name of the model under study.
    Returns:
        schemas.PAIRS ordered by block, branch, t downwards, feature, concept.
    """
    by_site = rows_by_site(nulls)
    empty = NULLS.empty_table()
    parts = [
        _site_pairs(site, splits, nulls.take(pa.array(by_site[site])) if site in by_site else empty, model)
        for site, splits in views(evidence).items()
        if "discovery" in splits
    ]
    return pa.concat_tables(parts).combine_chunks() if parts else PAIRS.empty_table()


def labels_of(candidates: pa.Table) -> pa.Table:
    """The trusted candidates as schemas.LABELS, order kept."""
    kept = candidates.filter(candidates["trusted"]).drop_columns(["trusted"])
    return kept.select(LABELS.names).cast(LABELS).combine_chunks()
