"""Candidates that are no concept: for every feature the look and the place that explain most of it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import t as student

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.explained import PLACE, STYLE, Explained
from gazetteer.labeling.rules.kinds.places import PLACES, place_maps
from gazetteer.labeling.rules.kinds.styles import style_tests
from gazetteer.labeling.rules.significance import q_values

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray]


def style_rows(
    codes: SiteCodes, maps: ConceptMaps, looks: NDArray[np.bool_], explained: Explained, config: LabelConfig
) -> Columns:
    """The best look of every feature that rises with one, with its test, as columns of schemas.CANDIDATES.

    `precision`, `recall` and `lift` count pictures: those in which the feature fires, those with the look, and chance.
    ``passes`` says whether `q_value`, `lift`, `images_both` and the AUC's interval are good enough.
    """
    row, style = _best(explained, STYLE)
    tests = style_tests(codes, maps, looks, explained.features, config=config.null)
    owner = image_places(codes, maps)
    images = np.unique(owner[maps.splits[owner] == "discovery"])
    starts = codes.pair_starts()
    starts = starts[maps.splits[owner[codes.image[starts]]] == "discovery"]
    feature = np.searchsorted(explained.features, codes.feature[starts])
    fires = sp.csr_array(
        (np.ones(len(starts)), (feature, owner[codes.image[starts]])), (len(explained.features), len(looks))
    )
    both = np.asarray(fires @ looks.astype(np.float64))
    shown, fired = looks[images].sum(axis=0), np.asarray(fires.sum(axis=1)).ravel()
    tested = np.outer(fired, shown) / max(len(images), 1) >= config.min_expected
    q = np.ones(tests.p.shape)
    q[tested] = q_values(tests.p[tested], int(tested.sum()))
    precision = both[row, style] / fired[row]
    columns: Columns = {
        "feature": explained.features[row], "concept": np.array(_names(explained, STYLE), object)[style],
        "kind": np.full(len(row), STYLE, object), "images_feature": fired[row].astype(np.int64),
        "images_concept": shown[style], "images_both": both[row, style].astype(np.int64), "precision": precision,
        "recall": both[row, style] / shown[style], "lift": precision / (shown[style] / len(images)),
        "p_value": np.where(tested, tests.p, np.nan)[row, style], "q_value": np.where(tested, q, np.nan)[row, style],
        "auc": tests.auc[row, style], "auc_low": tests.low[row, style], "auc_high": tests.high[row, style],
    }  # fmt: skip
    columns["passes"] = _significant(columns, config) & (columns["auc_low"] >= config.min_auc)
    return columns


def place_rows(codes: SiteCodes, maps: ConceptMaps, explained: Explained, config: LabelConfig) -> Columns:
    """The best place of every feature that rises with one, as columns of schemas.CANDIDATES.

    `precision` is the share of a picture's activation in the place, the mean over pictures; `lift` that over the
    place's share of the picture; p a one-sided t-test over the pictures in which the feature fires.
    """
    row, place = _best(explained, PLACE)
    owner = image_places(codes, maps)
    own = np.flatnonzero(maps.splits[owner[codes.image]] == "discovery")
    starts = np.flatnonzero(np.diff(codes.image[own], prepend=-1) | np.diff(codes.feature[own], prepend=-1))
    pair = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(own))))
    value = codes.value[own].astype(np.float64)
    inside = place_maps((codes.height, codes.width))
    mass = sp.csr_array((value, (pair, codes.cell[own])), (len(starts), codes.cells)) @ inside.T
    fraction = np.asarray(mass) / np.bincount(pair, value, len(starts))[:, None]
    feature = np.searchsorted(explained.features, codes.feature[own][starts])
    count = np.bincount(feature, minlength=len(explained.features)).astype(np.float64)
    rows = sp.csr_array((np.ones(len(feature)), (feature, np.arange(len(feature)))), (len(count), len(feature)))
    mean, square, touched = (np.asarray(rows @ x) for x in (fraction, fraction**2, (fraction > 0).astype(np.float64)))
    area = inside.mean(axis=1)
    mean = mean / np.maximum(count, 1)[:, None]
    p = _t_test(mean, square / np.maximum(count, 1)[:, None], count[:, None], area)
    q = q_values(p.ravel(), p.size).reshape(p.shape)
    columns: Columns = {
        "feature": explained.features[row], "concept": np.array(list(PLACES), object)[place],
        "kind": np.full(len(row), PLACE, object), "images_feature": count[row].astype(np.int64),
        "images_concept": np.full(len(row), explained.images), "images_both": touched[row, place].astype(np.int64),
        "precision": mean[row, place], "lift": mean[row, place] / area[place],
        "p_value": p[row, place], "q_value": q[row, place],
    }  # fmt: skip
    columns["passes"] = _significant(columns, config)
    return columns


def _best(explained: Explained, form: str) -> tuple[Ints, Ints]:
    """(row of the feature, number within the form) of the explanations of a form that explain most, and something."""
    columns = [i for i, other_form in enumerate(explained.forms) if other_form == form]
    if not columns or not len(explained.features):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    fractions = explained.fraction[:, columns]
    best = fractions.argmax(axis=1)
    row = np.flatnonzero(fractions[np.arange(len(fractions)), best] > 0)
    return row, best[row]


def _names(explained: Explained, form: str) -> list[str]:
    return [name for name, other_form in zip(explained.names, explained.forms, strict=True) if other_form == form]


def _significant(rows: Columns, config: LabelConfig) -> NDArray[np.bool_]:
    passes: NDArray[np.bool_] = (
        (rows["q_value"] <= config.max_q) & (rows["lift"] >= config.min_lift)
        & (rows["images_both"] >= config.min_images)
    )  # fmt: skip
    return passes


def _t_test(mean: Floats, square: Floats, count: Floats, area: Floats) -> Floats:
    """P that a mean share over `count` pictures is so far above `area` by chance; 1 for a single picture."""
    several = np.maximum(count - 1, 1)
    error = np.sqrt(np.maximum(square - mean**2, 0.0) / several)
    distance = np.where(mean > area, mean - area, 0.0)
    statistic = np.divide(distance, error, out=np.where(distance > 0, np.inf, 0.0), where=error > 0)
    p: Floats = np.where(count > 1, student.sf(statistic, several), 1.0)
    return p
