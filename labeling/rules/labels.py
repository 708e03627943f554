"""Evidence becomes labels: every statistic of every co-occurring pair, and which pairs can be trusted.

With I the intersection, A the feature's support and M the concept's unions, all in pixels summed over the
discovery images that were asked for the concept, and E the mean of I when images are shuffled
(labeling/rules/null.py):

    dataset_iou = I / (A + M - I)      precision = I / A      recall = I / M
    null_iou    = E / (A + M - E)      lift      = I / E

The per-image rule (`hits`, `mean_iou`) is counted in labeling/evidence/counts.py. An undefined ratio is null.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Gt, Lt
from numpy.typing import NDArray

from gazetteer.data.core.settings import Count, Effect, Natural, NonNegative, Share, setting, settings
from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.tables.schemas import LABELS, PAIRS
from gazetteer.labeling.evidence.site_codes import rows_by_site, site_arrays
from gazetteer.labeling.evidence.view import SplitEvidence, views
from gazetteer.labeling.rules.null import NullConfig

Floats = NDArray[np.float64]

NULLS = pa.schema(
    [
        *(PAIRS.field(name) for name in (*SITE_COLUMNS, "feature", "concept")),
        pa.field("p_value", pa.float64(), nullable=False),
        pa.field("q_value", pa.float64(), nullable=False),
    ]
)
"""What the location-preserving null says: one row per tested pair of a site."""


@settings("labels")
class LabelConfig:
    """When a label is trusted, and how its null is sampled."""

    max_q: Share = setting(
        Effect.LABELS, "Highest false discovery rate (Benjamini-Hochberg over the site's tested pairs).", default=0.05
    )
    min_lift: NonNegative = setting(
        Effect.LABELS, "Lowest ratio of the intersection to that of shuffled images.", default=1.2
    )
    min_images: Count = setting(
        Effect.LABELS, "Fewest discovery images with both; pairs with fewer are not tested.", default=5
    )
    min_dataset_iou: Share = setting(
        Effect.LABELS, "Lowest data-set IoU (NetDissect, arXiv 1704.05796, uses 0.04).", default=0.04
    )
    top_shares: tuple[Annotated[float, Gt(0), Lt(1)], ...] = setting(
        Effect.LABELS,
        "Shares of a feature's active cells that are tried as its top quantile beside the support "
        "(labeling/rules/top_quantile.py); () tries none.",
        default=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
    )
    permutations: Count = setting(
        Effect.LABELS, "First permutations of every pair of a feature and a concept.", default=1000
    )
    refine: Natural = setting(Effect.LABELS, "Further permutations of promising pairs.", default=19000)
    seed: int = setting(Effect.LABELS, "Of the permutations.", default=0)

    @property
    def null(self) -> NullConfig:
        """The sampling of the null."""
        return NullConfig(permutations=self.permutations, refine=self.refine, seed=self.seed)


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


def _ranks(row: NDArray[np.int64], concept: NDArray[np.int64], gain: Floats, trusted: NDArray[np.bool_]) -> Floats:
    """1, 2, ... over the trusted pairs of each feature, by gain downwards, then concept; NaN elsewhere."""
    rank = np.full(len(row), np.nan)
    kept = np.flatnonzero(trusted)
    order = kept[np.lexsort((concept[kept], -gain[kept], row[kept]))]
    starts = np.flatnonzero(np.diff(row[order], prepend=-1))
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order)))) + 1
    return rank


def _column(values: NDArray[np.generic], field: pa.Field) -> pa.Array:
    """Values as the field's type, NaN as null."""
    if field.nullable:
        undefined = np.isnan(values.astype(np.float64))
        return pa.array(np.where(undefined, 0, values), mask=undefined).cast(field.type)
    return pa.array(values).cast(field.type)


def _site_pairs(
    site: Site, splits: dict[str, SplitEvidence], nulls: pa.Table, model: str, config: LabelConfig
) -> pa.Table:
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
    for name in ("p_value", "q_value"):
        known = nulls[name].to_numpy()[by_key]
        scores[name] = np.where(there, known[at], np.nan) if len(known) else np.full(len(found.row), np.nan)
    # Comparisons with NaN are false, so an untested or undefined pair is never trusted.
    trusted = (
        (scores["q_value"] <= config.max_q) & (scores["lift"] >= config.min_lift)
        & (found.both >= config.min_images) & (scores["dataset_iou"] >= config.min_dataset_iou)
    )  # fmt: skip
    rank = _ranks(found.row, found.concept, scores["dataset_iou"] - scores["null_iou"], trusted)
    order = np.lexsort((found.concept, rank, found.row))  # NaN sorts last
    values: dict[str, NDArray[np.generic]] = {
        "feature": found.features[found.row], "rank": rank,
        "images_feature": found.asked, "images_concept": found.concept_images[found.concept],
        "images_both": found.both, "hits": found.hits, **scores,
        **{f"heldout_{name}": column for name, column in held.items()},
        "paper_label": found.hits >= 1, "trusted": trusted,
    }  # fmt: skip
    columns: dict[str, pa.Array] = {
        "model": pa.repeat(model, len(order)), **site_arrays(site, len(order)),
        "concept": pa.array(found.concepts, pa.string()).take(pa.array(found.concept[order])),
    }  # fmt: skip
    for name, column in values.items():
        columns[name] = _column(column[order], PAIRS.field(name))
    return pa.Table.from_arrays([columns[name] for name in PAIRS.names], schema=PAIRS)


def make_pairs(evidence: pa.Table, nulls: pa.Table, model: str, config: LabelConfig = LabelConfig()) -> pa.Table:
    """Every pair that co-occurs in a discovery image, with its statistics.

    Args:
        evidence: summed evidence (schemas.EVIDENCE).
        nulls: p and q of the tested pairs (NULLS, from `reduce.pair_significance`).
        model: name of the model under study.
        config: trust thresholds.
    Returns:
        schemas.PAIRS ordered by block, branch, t downwards, feature, rank (nulls last), concept.
    """
    by_site = rows_by_site(nulls)
    empty = NULLS.empty_table()
    parts = [
        _site_pairs(site, splits, nulls.take(pa.array(by_site[site])) if site in by_site else empty, model, config)
        for site, splits in views(evidence).items()
        if "discovery" in splits
    ]
    return pa.concat_tables(parts).combine_chunks() if parts else PAIRS.empty_table()


def labels_of(candidates: pa.Table) -> pa.Table:
    """The trusted candidates as schemas.LABELS, order kept."""
    kept = candidates.filter(candidates["trusted"]).drop_columns(["trusted"])
    return kept.select(LABELS.names).cast(LABELS).combine_chunks()
