"""From edited pictures to causal labels: paired changes of every concept, their intervals, and a verdict each.

The pictures are the same for *on*, *random* and plain, so every difference is taken picture by picture. The verdict
rests on area(on) − area(random): p values from flipping the signs of the differences, q values (Benjamini–Hochberg)
apart for pairs that observation labelled and for all others, which are many more. Pictures of one prompt are alike, so
that their differences count as one, their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from gazetteer.data.core.sites import SITE_COLUMNS, Site
from gazetteer.data.tables.schemas import CAUSAL, CAUSAL_MEASURES, VERDICTS
from gazetteer.labeling.evidence.site_codes import rows_by_site
from gazetteer.labeling.interventions.causal_power import ALPHA, power_of
from gazetteer.labeling.quality.intervals import interval_of, sample_weights
from gazetteer.labeling.rules.tails import tail_bound

Floats = NDArray[np.float64]
MAX_Q = 0.05
FLIPS = 10_000
USUAL = 0.05
"""Share of a picture that a concept is taken to cover where no picture shows it."""
_ROWS = 2048  # pairs whose resamples are in memory together


def causal_table(
    effects: pa.Table, labels: pa.Table, concepts: Sequence[str], power: float = 0.9, fraction: float = 0.3,
    prompts: Mapping[str, str] | None = None,
) -> pa.Table:  # fmt: skip
    """Rows of `gazetteer.data.tables.schemas.CAUSAL`: every tried feature with every concept.

    Args:
        effects: `gazetteer.data.tables.schemas.EFFECTS`, of any number of sites; plain rows may repeat.
        labels: the columns block, branch, t, feature, concept of the trusted labels.
        concepts: what the detector was asked of every picture, sorted.
        power, fraction: a label without a sure effect is ``undecided`` unless a rise in `fraction` of its pictures, as
            large as the concept usually is, would have been found so often (`labeling.interventions.causal_power`) at
            the p that the labels' false discovery rate allows.
        prompts: by image id what the picture was drawn of; None: each of a prompt of its own.
    """
    known = _labelled(labels)
    columns: dict[str, list[Any]] = {name: [] for name in CAUSAL.names}
    tried: list[tuple[Floats, float]] = []
    for site, rows in rows_by_site(effects).items():
        for group in _by_pictures(effects.take(pa.array(rows)).to_pylist()):
            tried += _add_site(columns, site, group, known.get(site, set()), concepts, prompts or {})
    flat = {name: np.concatenate(parts) for name, parts in columns.items() if parts}
    if not flat:
        return CAUSAL.empty_table()
    alpha = reached(flat["causal_p_value"], flat["labelled"])
    flat["causal_power"] = np.full(len(tried), np.nan)
    for row in np.flatnonzero(flat["labelled"]):
        flat["causal_power"][row] = power_of(*tried[row], fraction, alpha)
    flat["causal_q_value"], flat["causal_verdict"] = judged(
        flat["causal_area"], flat["causal_p_value"], flat["labelled"], flat["causal_power"] >= power
    )
    flat = _ordered(flat)
    return pa.table(
        {name: pa.array(flat[name], CAUSAL.field(name).type, from_pandas=True) for name in CAUSAL.names}, schema=CAUSAL
    )


def _ordered(flat: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The rows by site, feature and concept, however many pictures each feature had."""
    keys = [flat[name].astype(str) if name != "feature" and name != "t" else flat[name]
            for name in ("concept", "feature", "t", "branch", "signal", "stream", "block")]  # fmt: skip
    keys[2] = -keys[2].astype(np.float64)
    order = np.lexsort(keys)
    return {name: values[order] for name, values in flat.items()}


def _by_pictures(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of a site by features that were tried on the same pictures, each with those pictures' plain rows."""
    seen: dict[int, set[str]] = {}
    for row in rows:
        if row["feature"] is not None:
            seen.setdefault(row["feature"], set()).add(row["image_id"])
    groups: dict[frozenset[str], list[int]] = {}
    for feature, images in sorted(seen.items()):
        groups.setdefault(frozenset(images), []).append(feature)
    return [
        [
            row
            for row in rows
            if row["feature"] in set(features) or (row["feature"] is None and row["image_id"] in images)
        ]
        for images, features in groups.items()
    ]


def judged(
    area: Floats, p: Floats, labelled: NDArray[np.bool_], able: NDArray[np.bool_] | None = None
) -> tuple[Floats, NDArray[np.str_]]:
    """q values and VERDICTS of pairs [R] from their mean change of area and p values.

    able: whether an effect would have been found; None: of all pairs.
    """
    q = _rates(p, labelled)
    rises, falls = (q <= MAX_Q) & (area > 0), (q <= MAX_Q) & (area < 0)
    silent = np.where(np.ones(len(p), bool) if able is None else able, "no effect", "undecided")
    with_label = np.select([rises, falls], ["confirmed", "contradicted"], silent)
    without = np.select([rises, falls], ["effect without label", "suppressed"], "none")
    return q, np.where(labelled, with_label, without)


def reached(p: Floats, labelled: NDArray[np.bool_]) -> float:
    """The p at which a label is sure beside the others: Benjamini and Hochberg's, of as many as are sure, or of one."""
    sure = int((_rates(p, labelled)[labelled] <= MAX_Q).sum())
    return MAX_Q * max(sure, 1) / max(int(labelled.sum()), 1)


def _rates(p: Floats, labelled: NDArray[np.bool_]) -> Floats:
    q = np.ones(len(p))
    for family in (labelled, ~labelled):
        q[family] = false_discovery_control(p[family])
    return q


def _labelled(labels: pa.Table) -> dict[Site, set[tuple[int, str]]]:
    pairs = {}
    for site, rows in rows_by_site(labels).items():
        table = labels.take(pa.array(rows))
        pairs[site] = set(zip(table["feature"].to_pylist(), table["concept"].to_pylist(), strict=True))
    return pairs


def _add_site(
    columns: dict[str, list[Any]], site: Site, rows: Sequence[Mapping[str, Any]], labelled: set[tuple[int, str]],
    concepts: Sequence[str], prompts: Mapping[str, str],
) -> list[tuple[Floats, float]]:  # fmt: skip
    """Add the pairs of features that share their pictures; of each its differences and the concept's usual area."""
    images = sorted({row["image_id"] for row in rows})
    features = sorted({row["feature"] for row in rows if row["feature"] is not None})
    place = {name: i for i, name in enumerate(images)}
    number = {name: i for i, name in enumerate(concepts)}
    line = {feature: i for i, feature in enumerate(features)}
    area = {state: np.zeros((len(features), len(images), len(concepts))) for state in ("on", "random")}
    plain = np.zeros((len(images), len(concepts)))
    change = {state: np.zeros((len(features), len(images))) for state in area}
    for row in rows:
        i = place[row["image_id"]]
        target = plain[i] if row["feature"] is None else area[row["state"]][line[row["feature"]], i]
        target[:] = 0.0  # a feature that was measured again, in a larger group, counts once
        target[[number[name] for name in row["concept"]]] = row["area"]
        if row["feature"] is not None:
            change[row["state"]][line[row["feature"]], i] = row["change"]
    differences = _differences(area, plain)
    together = _means_over([prompts.get(name, name) for name in images])
    flat = {name: np.moveaxis(values, 1, 2).reshape(-1, len(images)) @ together for name, values in differences.items()}
    pairs = len(features) * len(concepts)
    each = np.repeat(np.arange(len(features)), len(concepts))
    for name, value in site.columns().items():
        columns[name].append(np.full(pairs, value))
    columns["feature"].append(np.array(features)[each])
    columns["concept"].append(np.tile(np.array(concepts, dtype=object), len(features)))
    has_label = np.array([(f, c) in labelled for f in features for c in concepts], bool)
    columns["labelled"].append(has_label)
    columns["causal_images"].append(np.full(pairs, len(images)))
    for state in area:
        columns[f"causal_change_{state}"].append(change[state].mean(axis=1)[each])
    for name in CAUSAL_MEASURES:
        for end, values in zip(("", "_low", "_high"), paired_interval(flat[name]), strict=True):
            columns[f"causal_{name}{end}"].append(values)
    columns["causal_p_value"].append(sign_flip_p(flat["area"]))
    rises = np.tile(typical_area(plain), len(features))
    return list(zip(flat["area"], rises.tolist(), strict=True))


def _means_over(groups: Sequence[str]) -> Floats:
    """What makes of values of pictures their means over groups, in order of appearance: [pictures, groups]."""
    number = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    member = np.zeros((len(groups), len(number)))
    member[np.arange(len(groups)), [number[name] for name in groups]] = 1.0
    return member / np.maximum(member.sum(axis=0), 1.0)


def typical_area(plain: Floats) -> Floats:
    """How much of a picture each concept covers where it is found, the median; USUAL where it is found nowhere: [C]."""
    areas = [column[column > 0] for column in plain.T]
    return np.array([float(np.median(shown)) if len(shown) else USUAL for shown in areas])


def _differences(area: Mapping[str, Floats], plain: Floats) -> dict[str, Floats]:
    """Every CAUSAL_MEASURES as [features, images, concepts]."""
    on, random = area["on"], area["random"]
    present = {name: (values > 0).astype(float) for name, values in (("on", on), ("random", random), ("plain", plain))}
    return {
        "area": on - random, "presence": present["on"] - present["random"],
        "area_on": on - plain, "presence_on": present["on"] - present["plain"],
        "area_random": random - plain, "presence_random": present["random"] - present["plain"],
    }  # fmt: skip


def paired_interval(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean and its 95 % bootstrap interval (percentiles): three times [R] from differences [R, N].

    A single difference says nothing of others: NaN for low and high.
    """
    images = values.shape[1]
    mean = values.mean(axis=1)
    if images < 2:
        return mean, np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    weights = sample_weights(images) / images
    low, high = mean.copy(), mean.copy()
    varied = np.flatnonzero((values != values[:, :1]).any(axis=1))
    for start in range(0, len(varied), _ROWS):
        batch = varied[start : start + _ROWS]
        _, low[batch], high[batch] = interval_of(weights @ values[batch].T)
    return mean, low, high


def sign_flip_p(values: Floats) -> Floats:
    """Two-sided p of the mean of paired differences [R, N] being 0: share of FLIPS random sign changes as extreme.

    Where none is, Chernoff's bound of the same distribution, so that p has no floor which many tests could not pass.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, values.shape[1]))
    p = np.ones(len(values))
    moved = np.flatnonzero(values.any(axis=1))
    for start in range(0, len(moved), _ROWS):
        batch = moved[start : start + _ROWS]
        sums = np.abs(values[batch] @ signs.T)
        observed = np.abs(values[batch].sum(axis=1))
        count = (sums >= observed[:, None] * (1 - 1e-9)).sum(axis=1)
        p[batch] = (1 + count) / (1 + FLIPS)
        rare = batch[count == 0]
        signed = np.stack([values[rare].T, -values[rare].T])
        p[rare] = np.minimum(p[rare], 2 * tail_bound([(signed, 1.0)], np.abs(values[rare].sum(axis=1))))
    return p


def summarise(table: pa.Table) -> dict[str, Any]:
    """Counts of a causal table: pairs by verdict, features with an effect without label, and the base rate of effects.

    ``effect_features`` counts those features, ``effect_features_unlabelled`` the ones among them without any label.
    ``labels_rising`` and ``other_pairs_rising`` are the shares of pairs that rise with p ≤ ALPHA, so that both can
    be compared; a false discovery rate cuts the fewer at a higher p.
    """
    verdict = np.array(table["causal_verdict"].to_pylist(), dtype=object)
    labelled = np.array(table["labelled"].to_pylist(), bool)
    keys = list(zip(*(table[name].to_pylist() for name in (*SITE_COLUMNS, "feature")), strict=True))
    named = {key for key, has in zip(keys, labelled, strict=True) if has}
    silent = {key for key, v in zip(keys, verdict, strict=True) if v == "effect without label"}
    count = {name: int((verdict == name).sum()) for name in VERDICTS[:5]}
    power = np.array(table["causal_power"].to_pylist(), np.float64)[labelled]
    rises = (np.array(table["causal_p_value"], np.float64) <= ALPHA) & (np.array(table["causal_area"], np.float64) > 0)
    return {
        "features": len(set(keys)), "labelled_features": len(named), "labels": int(labelled.sum()),
        "confirmed": count["confirmed"], "contradicted": count["contradicted"], "no_effect": count["no effect"],
        "undecided": count["undecided"], "power": None if not len(power) else round(float(power.mean()), 4),
        "effect_without_label": count["effect without label"],
        "effect_features": len(silent), "effect_features_unlabelled": len(silent - named),
        "other_pairs": int((~labelled).sum()),
        "other_pairs_rising": _fraction(rises[~labelled]),
        "labels_rising": _fraction(rises[labelled]),
    }  # fmt: skip


def _fraction(hits: NDArray[np.bool_]) -> float | None:
    return round(float(hits.mean()), 4) if len(hits) else None
