"""Evidence becomes statistics of every co-occurring pair of a feature and a concept, with what the nulls say of it.

With I the intersection, A the feature's support and M the concept's unions, all in pixels summed over the
discovery images that were asked for the concept, and E the mean of I when images are shuffled
(labeling/rules/null.py):

    dataset_iou = I / (A + M - I)      precision = I / A      recall = I / M
    null_iou    = E / (A + M - E)      lift      = I / E

Where given pictures have cells that nobody decided on, what fires there is left out of I and A, and `lift` is taken of
all that fires, as the nulls are (labeling/rules/null.py); E is no more than A for `null_iou`.

The per-image rule (`hits`, `mean_iou`) is counted in labeling/evidence/counts.py. An undefined ratio is null. Which
pairs are trusted, and as what, is decided in labeling/rules/kinds/decide.py.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.tables.schemas import LABELS, PAIRS
from gazetteer.labeling.evidence.site_codes import rows_by_site, site_arrays
from gazetteer.labeling.evidence.view import SplitEvidence, views
from gazetteer.labeling.rules.meetings import Meetings

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


def _scores(evidence: SplitEvidence) -> dict[str, Floats]:
    """The ratios of every pair of a split, NaN where undefined; those of shuffled images apart."""
    inter, area, masks = evidence.intersection, evidence.area, evidence.concept_area[evidence.concept]
    return {
        "hit_rate": _ratio(evidence.hits, evidence.both),
        "mean_iou": _ratio(evidence.iou_micro / 1e6, evidence.both),
        "dataset_iou": _ratio(inter, area + masks - inter),
        "precision": _ratio(inter, area),
        "recall": _ratio(inter, masks),
    }


def _shuffled(evidence: SplitEvidence, met: Meetings | None) -> dict[str, Floats]:
    """What shuffled images say of every pair, NaN where undefined."""
    inter, area, masks = evidence.intersection, evidence.area, evidence.concept_area[evidence.concept]
    expected = chance = evidence.expected_intersection() if met is None else np.zeros(0)
    if met is not None:
        at = _met(evidence, met)
        inter, expected = met.intersection[at], met.expected[at]
        # The support that evidence knows may be smaller than the one that was shuffled.
        chance = np.where(met.ignored[met.row[at]], np.minimum(expected, area), expected)
    return {"null_iou": _ratio(chance, area + masks - chance), "lift": _ratio(inter, expected)}


def _met(evidence: SplitEvidence, met: Meetings) -> NDArray[np.int64]:
    """Where the pairs of evidence stand among those that meet in the codes that it was counted from.

    Evidence without maps does not know `SplitEvidence.expected_intersection`; codes and maps themselves do.
    """
    number = {name: i for i, name in enumerate(met.concepts)}
    own = np.array([number.get(name, -1) for name in evidence.concepts], np.int64)[evidence.concept]
    width = max(len(met.concepts), 1)
    at, known = _place(met.features[met.row] * width + met.concept, evidence.features[evidence.row] * width + own)
    apart = np.ones(len(met.row), np.bool_)
    apart[at[known]] = False
    if not known.all() or (own < 0).any() or not met.ignored[met.row[apart]].all():
        raise InputError("Evidence and codes contradict each other: they name other pairs of a feature and a concept.")
    return at


def _keys(evidence: SplitEvidence, concepts: int) -> NDArray[np.int64]:
    """One integer per pair, ascending in (feature, concept)."""
    return evidence.features[evidence.row] * concepts + evidence.concept


def _place(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where `wanted` stands in ascending `keys`, and whether it does."""
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    return at, keys[at] == wanted if len(keys) else np.zeros(len(wanted), np.bool_)


def _heldout(evidence: SplitEvidence, other: SplitEvidence | None) -> dict[str, NDArray[np.generic]]:
    """The same scores on held-out images; a pair that never co-occurs there has 0 images and an IoU of 0.

    The IoU is null only where nothing could be measured: no held-out images, none that was asked for the concept, or
    neither feature nor concept in those that were.
    """
    size, none = len(evidence.row), np.full(len(evidence.row), np.nan)
    result = {"images": np.zeros(size, np.int64), "hit_rate": none, "mean_iou": none, "dataset_iou": none}
    if other is None:
        return result
    count = max(len(evidence.concepts), 1)
    at, present = _place(_keys(other, count), _keys(evidence, count))
    if len(other.row):
        scores = _scores(other)
        result["images"] = np.where(present, other.both[at], 0)
        for name in ("hit_rate", "mean_iou", "dataset_iou"):
            result[name] = np.where(present, scores[name][at], np.nan)
    _, fires = _place(other.features[other.feature_area > 0], evidence.features[evidence.row])
    everywhere = (other.concept_asked == other.images)[evidence.concept]
    vain = other.features[other.vain_row] * count + other.vain_concept  # the feature fires where it was asked
    fires = np.where(everywhere, fires, np.isin(_keys(evidence, count), vain))
    known = (other.concept_asked > 0)[evidence.concept]
    apart = ~present & known & (fires | (other.concept_area[evidence.concept] > 0))
    result["dataset_iou"] = np.where(apart, 0.0, result["dataset_iou"])
    return result


def _column(values: NDArray[np.generic], field: pa.Field) -> pa.Array:
    """Values as the field's type, NaN as null."""
    if field.nullable:
        undefined = np.isnan(values.astype(np.float64))
        return pa.array(np.where(undefined, 0, values), mask=undefined).cast(field.type)
    return pa.array(values).cast(field.type)


def _site_pairs(
    site: Site, splits: dict[str, SplitEvidence], nulls: pa.Table, model: str, met: Meetings | None
) -> pa.Table:
    """The pairs of one site, in table order."""
    evidence = splits["discovery"]
    scores, held = _scores(evidence) | _shuffled(evidence, met), _heldout(evidence, splits.get("heldout"))
    count = max(len(evidence.concepts), 1)
    index = {name: number for number, name in enumerate(evidence.concepts)}
    tested = nulls["feature"].to_numpy() * count + np.array(
        [index[name] for name in nulls["concept"].to_pylist()], np.int64
    )
    by_key = np.argsort(tested, kind="stable")
    at, tested_pairs = _place(tested[by_key], _keys(evidence, count))
    for name in ("p_value", "q_value", *WHERE):
        known = nulls[name].to_numpy()[by_key].astype(np.float64)
        scores[name] = np.where(tested_pairs, known[at], np.nan) if len(known) else np.full(len(evidence.row), np.nan)
    order = np.lexsort((evidence.concept, evidence.row))
    values: dict[str, NDArray[np.generic]] = {
        "feature": evidence.features[evidence.row],
        "images_feature": evidence.asked, "images_concept": evidence.concept_images[evidence.concept],
        "images_both": evidence.both, "hits": evidence.hits, **scores,
        **{f"heldout_{name}": column for name, column in held.items()}, "paper_label": evidence.hits >= 1,
    }  # fmt: skip
    columns: dict[str, pa.Array] = {
        "model": pa.repeat(model, len(order)), **site_arrays(site, len(order)),
        "concept": pa.array(evidence.concepts, pa.string()).take(pa.array(evidence.concept[order])),
    }  # fmt: skip
    for name, column in values.items():
        columns[name] = _column(column[order], PAIRS.field(name))
    return pa.Table.from_arrays([columns[name] for name in PAIRS.names], schema=PAIRS)


def make_pairs(evidence: pa.Table, nulls: pa.Table, model: str, met: Meetings | None = None) -> pa.Table:
    """Every pair that co-occurs in a discovery image, with its statistics.

    Args:
        evidence: summed evidence (schemas.EVIDENCE).
        nulls: p and q of the tested pairs (NULLS, from `significance.significance`).
        model: name of the model under study.
        met: of the discovery split of the one site that `evidence` is of, which may then lack its maps.
    Returns:
        schemas.PAIRS ordered by block, branch, t downwards, feature, concept.
    """
    by_site = rows_by_site(nulls)
    empty = NULLS.empty_table()
    parts = [
        _site_pairs(site, splits, nulls.take(pa.array(by_site[site])) if site in by_site else empty, model, met)
        for site, splits in views(evidence).items()
        if "discovery" in splits
    ]
    return pa.concat_tables(parts).combine_chunks() if parts else PAIRS.empty_table()


def labels_of(candidates: pa.Table) -> pa.Table:
    """The trusted candidates as schemas.LABELS, order kept."""
    trusted = candidates.filter(candidates["trusted"]).drop_columns(["trusted"])
    return trusted.select(LABELS.names).cast(LABELS).combine_chunks()
