"""Candidates that are no concept: for every feature the look and the place that explain most of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import t as student

from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.pooling import Grid
from gazetteer.labeling.evidence.site_codes import SiteCodes, compacted
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.kinds.explained import PLACE, STYLE, Explained
from gazetteer.labeling.rules.kinds.places import PLACES, place_maps
from gazetteer.labeling.rules.kinds.styles import StyleTests, style_tests
from gazetteer.labeling.rules.significance import q_values

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray]

_RUNS = 2**20  # pairs of a feature and a picture looked at together


@dataclass(frozen=True)
class Beyond:
    """What the discovery pictures say of F features, of S looks and of P built-in places.

    Attributes:
        features: int64 [F], ascending: those that fire; `fired` [F]: in how many pictures.
        images: pictures at the site; `shown` [S]: those with each look; `both` [F, S]: in which the feature fires.
        looks: AUC and p; `look_q` [F, S]: over those that chance would bring together often enough, else NaN.
        mean, touched, place_p, place_q: float64 [F, P]: share of a picture's activation in the place, the mean over
            pictures; pictures with any; p of a one-sided t-test over the pictures in which the feature fires.
    The tests look at one picture of each prompt (`ConceptMaps.one_a_prompt`), everything else at all.
    """

    features: Ints
    fired: Floats
    images: int
    shown: Ints
    both: Floats
    looks: StyleTests
    look_q: Floats
    mean: Floats
    touched: Floats
    place_p: Floats
    place_q: Floats

    def among(self, low: int, high: int) -> Beyond:
        """Of the features from `low` to `high` alone."""
        kept = slice(*np.searchsorted(self.features, (low, high)))
        kept_columns = {name: getattr(self, name)[kept] for name in _BY_FEATURE}
        return replace(self, looks=StyleTests(*(values[kept] for values in astuple(self.looks))), **kept_columns)


_BY_FEATURE = ("features", "fired", "both", "look_q", "mean", "touched", "place_p", "place_q")


def beyond_tests(codes: SiteCodes, maps: ConceptMaps, looks: NDArray[np.bool_], config: LabelConfig) -> Beyond:
    """Test every feature that fires against looks and places; the q wait for the other features (`join_beyond`)."""
    witnesses = maps.one_a_prompt()
    every = _fires(codes, maps)
    apart = every if witnesses is maps else _fires(codes, witnesses, every.features)
    tests = style_tests(codes, witnesses, looks, every.features, config=config.null)
    tested = np.outer(apart.fired, looks[apart.images].sum(axis=0)) / max(len(apart.images), 1) >= config.min_expected
    area = place_maps((codes.height, codes.width)).mean(axis=1)
    p = _t_test(apart.mean, apart.square, apart.fired[:, None], area)
    return Beyond(
        every.features, every.fired, len(every.images), looks[every.images].sum(axis=0),
        np.asarray(every.fires @ looks.astype(np.float64)), tests,
        np.where(tested, 1.0, np.nan), every.mean, every.touched, p, np.ones(p.shape),
    )  # fmt: skip


@dataclass(frozen=True)
class _Firing:
    """In which discovery pictures F features fire, and where.

    Attributes:
        images: of the site and split; fires: [F, I], 1 where the feature fires; `fired` [F]: in how many pictures.
        mean, square, touched: float64 [F, P], of the share of a picture's activation in each place: mean over the
            pictures in which the feature fires, mean square, and pictures with any.
    """

    features: Ints
    images: Ints
    fires: sp.csr_array
    fired: Floats
    mean: Floats
    square: Floats
    touched: Floats


def _fires(codes: SiteCodes, maps: ConceptMaps, features: Ints | None = None) -> _Firing:
    """features: those to count, ascending, of which no other may fire; None: those that fire."""
    owner = image_places(codes, maps)
    learnt = (maps.splits == "discovery")[owner]
    kept = np.flatnonzero(learnt[codes.image])
    own, row = compacted(codes.feature[kept])
    features, row = (own, row) if features is None else (features, np.searchsorted(features, own)[row])
    image = codes.image[kept]
    starts = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
    place = (row[starts], owner[image[starts]])
    fires = sp.csr_array((np.ones(len(starts)), place), (len(features), len(maps.image_ids)))
    fired = np.asarray(fires.sum(axis=1)).ravel()
    mean, square, touched = _in_places(codes, kept, starts, row, len(features))
    several = np.maximum(fired, 1)[:, None]
    return _Firing(features, np.unique(owner[learnt]), fires, fired, mean / several, square / several, touched)


def join_beyond(parts: Sequence[Beyond]) -> Beyond:
    """Of a site from its features in ascending stretches, with q by Benjamini-Hochberg over all of them."""
    joined: dict[str, NDArray] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _BY_FEATURE}
    looks = StyleTests(
        *(np.concatenate(columns) for columns in zip(*(astuple(part.looks) for part in parts), strict=True))
    )
    tested = ~np.isnan(joined["look_q"])
    joined["look_q"][tested] = q_values(looks.p[tested], int(tested.sum()))
    p = joined["place_p"]
    joined["place_q"] = q_values(p.ravel(), p.size).reshape(p.shape)
    whole: Beyond = replace(parts[0], looks=looks, **joined)  # type: ignore[arg-type]
    return whole


def style_rows(explained: Explained, beyond: Beyond, config: LabelConfig) -> Columns:
    """The best look of every feature that rises with one, with its test, as columns of schemas.CANDIDATES.

    `precision`, `recall` and `lift` count pictures: those in which the feature fires, those with the look, and chance.
    ``passes`` says whether `q_value`, `lift`, `images_both` and the AUC's interval are good enough.
    """
    row, style = _best(explained, STYLE)
    tests, q, both, shown = beyond.looks, beyond.look_q, beyond.both, beyond.shown
    tested = ~np.isnan(q)
    precision = both[row, style] / beyond.fired[row]
    columns: Columns = {
        "feature": explained.features[row], "concept": np.array(_names(explained, STYLE), object)[style],
        "kind": np.full(len(row), STYLE, object), "images_feature": beyond.fired[row].astype(np.int64),
        "images_concept": shown[style], "images_both": both[row, style].astype(np.int64), "precision": precision,
        "recall": both[row, style] / shown[style], "lift": precision / (shown[style] / beyond.images),
        "p_value": np.where(tested, tests.p, np.nan)[row, style], "q_value": q[row, style],
        "auc": tests.auc[row, style], "auc_low": tests.low[row, style], "auc_high": tests.high[row, style],
    }  # fmt: skip
    columns["passes"] = _significant(columns, config) & (columns["auc_low"] >= config.min_auc)
    return columns


def place_rows(explained: Explained, beyond: Beyond, grid: Grid, config: LabelConfig) -> Columns:
    """The best place of every feature that rises with one, as columns of schemas.CANDIDATES.

    `precision` is the share of a picture's activation in the place, the mean over pictures; `lift` that over the
    place's share of the picture; p a one-sided t-test over the pictures in which the feature fires.
    """
    row, place = _best(explained, PLACE)
    mean, area = beyond.mean[row, place], place_maps(grid).mean(axis=1)
    columns: Columns = {
        "feature": explained.features[row], "concept": np.array(list(PLACES), object)[place],
        "kind": np.full(len(row), PLACE, object), "images_feature": beyond.fired[row].astype(np.int64),
        "images_concept": np.full(len(row), explained.images),
        "images_both": beyond.touched[row, place].astype(np.int64),
        "precision": mean, "lift": mean / area[place],
        "p_value": beyond.place_p[row, place], "q_value": beyond.place_q[row, place],
    }  # fmt: skip
    columns["passes"] = _significant(columns, config)
    return columns


def _in_places(codes: SiteCodes, kept: Ints, starts: Ints, row: Ints, features: int) -> tuple[Floats, Floats, Floats]:
    """Sums over a feature's pictures of the share of the activation in a place, of its square, and of any: [F, P]."""
    inside = place_maps((codes.height, codes.width))
    sums = np.zeros((3, features, len(inside)))
    ends = np.append(starts, len(kept))
    for first in range(0, len(starts), _RUNS):
        cut = ends[first : first + _RUNS + 1]
        slots = slice(int(cut[0]), int(cut[-1]))
        value, cells = codes.value[kept[slots]].astype(np.float64), codes.cell[kept[slots]]
        mass = sp.csr_array((value, cells, cut - cut[0]), (len(cut) - 1, codes.cells)) @ inside.T
        share = np.asarray(mass) / np.add.reduceat(value, cut[:-1] - cut[0])[:, None]
        of = row[cut[:-1]]
        add = sp.csr_array((np.ones(len(of)), (of, np.arange(len(of)))), (features, len(of)))
        for total, power in zip(sums, (share, share**2, (share > 0).astype(np.float64)), strict=True):
            total += add @ power
    mean, square, touched = sums
    return mean, square, touched


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
    """P that a mean share over `count` pictures is so far above `area` by chance; 1 for a single picture.

    A few pictures that happen to be alike have no spread, and t would take them for certain. But the product of shares
    whose mean is `area` is (mean / area) ** count, or more, no oftener than (area / mean) ** count (Markov), and p is
    not below that: for one cell a picture, all in the place, area ** count.
    """
    several = np.maximum(count - 1, 1)
    error = np.sqrt(np.maximum(square - mean**2, 0.0) / several)
    distance = np.where(mean > area, mean - area, 0.0)
    statistic = np.divide(distance, error, out=np.where(distance > 0, np.inf, 0.0), where=error > 0)
    least = np.divide(area, mean, out=np.ones_like(mean), where=mean > area) ** count
    p: Floats = np.where(count > 1, np.maximum(student.sf(statistic, several), least), 1.0)
    return p
