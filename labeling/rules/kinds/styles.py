"""Looks: which pictures have one, and which features tell them apart by how much they fire in the whole picture.

A picture has a look when its prompt names it (labeling/vocabulary/concept_index.py: plurals, hyphens and case count
alike) or when a classifier that the user names says so. A feature's score of a picture is the sum of its activation
there. Against a look stand

    auc     the chance that a picture with the look scores higher than one without (ties count half), with the 95 %
            interval of Hanley and McNeil (Radiology 143, 1982)
    p       of the rank sum when the look is shuffled over the pictures; below what permutations resolve Chernoff's
            bound, which holds for draws without replacement as for those with (Hoeffding 1963, theorem 4)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from gazetteer.data.inputs.classifier import load_classifier
from gazetteer.data.tables.images import decode_image
from gazetteer.labeling.evidence.concept_maps import ConceptMaps, image_places
from gazetteer.labeling.evidence.site_codes import SiteCodes
from gazetteer.labeling.rules.config import NullConfig
from gazetteer.labeling.rules.null import seeded
from gazetteer.labeling.rules.tails import tail_bound
from gazetteer.labeling.vocabulary.concept_index import ConceptIndex

Floats = NDArray[np.float64]

_RANKS = 2**24  # ranks held at a time, features x pictures


def looks_of(prompts: Sequence[str], styles: Sequence[str]) -> NDArray[np.bool_]:
    """Which looks each prompt names: bool [I, S]."""
    index = ConceptIndex(dict.fromkeys(styles, ()))
    named = [index.find(prompt)[0] for prompt in prompts]
    return np.array([[style in styles_named for style in styles] for styles_named in named], np.bool_).reshape(
        len(named), len(styles)
    )


def read_looks(images: pa.Table, styles: Sequence[str], classifier: str = "") -> NDArray[np.bool_]:
    """Which looks the pictures have, in order of their ids: bool [I, S].

    Args:
        images: schemas.IMAGES: `image_id`, and `prompt`, or with a classifier `image`.
        classifier: ``module:function`` that gives an object with ``labels`` and ``probabilities``, uint8 [N, H, W, 3]
            -> [N, len(labels)]; a picture has the look of its likeliest label, and none when that is none of `styles`.
    Raises:
        InputError: the classifier cannot be had, does not know a look, or answers no probabilities.
    """
    order = np.argsort(np.array(images["image_id"].to_pylist(), np.str_), kind="stable")
    if not styles:
        return np.zeros((len(order), 0), np.bool_)
    if not classifier:
        return looks_of([images["prompt"][int(i)].as_py() for i in order], styles)
    judge = load_classifier(classifier, styles, "labels.style_classifier")
    shown = np.zeros((len(order), len(styles)), np.bool_)
    pictures = (decode_image(images["image"][int(i)]["bytes"].as_py()) for i in order)
    for row, odds in enumerate(judge.of_each(pictures)):
        likeliest = judge.labels[int(np.argmax(odds))]
        shown[row] = [likeliest == style for style in styles]
    return shown


@dataclass(frozen=True)
class StyleTests:
    """F features against S looks, float64 [F, S] each; NaN and p 1 where a look has no picture, or every one."""

    auc: Floats
    low: Floats
    high: Floats
    p: Floats


def style_tests(
    codes: SiteCodes,
    maps: ConceptMaps,
    looks: NDArray[np.bool_],
    features: NDArray[np.int64],
    split: str = "discovery",
    config: NullConfig = NullConfig(),
) -> StyleTests:
    """AUC and p of every feature and look in one split.

    Args:
        looks: bool [I, S], of the pictures of `maps`.
        features: int64 [F], ascending.
        config: `permutations`, `refine_below` and `seed` count.
    """
    owner = image_places(codes, maps)
    learnt = (maps.splits == split)[owner]
    images = np.unique(owner[learnt])
    has = looks[images]
    row, kept = _rows(codes, features, learnt[codes.image])
    column = np.searchsorted(images, owner[codes.image[kept]])
    value = codes.value[kept].astype(np.float64)
    score = sp.csr_array((value, (row, column)), (len(features), len(images)))
    key = (codes.site.slug, "looks", config.seed, *(maps.image_ids[i] for i in images))
    step = max(1, _RANKS // max(1, len(images)))
    parts = [_tests(score[s : s + step].toarray(), has, config, key) for s in range(0, len(features), step)]
    empty = np.zeros((0, has.shape[1]))
    if not parts:
        return StyleTests(empty, empty, empty, empty)
    return StyleTests(*(np.concatenate([empty, *column]) for column in zip(*parts, strict=True)))


def _rows(codes: SiteCodes, features: NDArray[np.int64], here: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """The row among `features` of each slot that counts, and which slots do."""
    at = np.minimum(np.searchsorted(features, codes.feature), max(len(features) - 1, 0))
    own = np.flatnonzero(here & (features[at] == codes.feature)) if len(features) else np.zeros(0, np.int64)
    return at[own], own


def _tests(
    score: Floats, has: NDArray[np.bool_], config: NullConfig, key: tuple[object, ...]
) -> tuple[Floats, Floats, Floats, Floats]:
    pictures = len(has)
    with_look = has.sum(axis=0)
    without = pictures - with_look
    both = (with_look > 0) & (without > 0)
    pairs = np.where(both, with_look * without, 1).astype(np.float64)
    ranks = rankdata(score, axis=1) if len(score) else score
    sums = ranks @ has
    auc = np.where(both, (sums - with_look * (with_look + 1) / 2) / pairs, np.nan)
    # Half a pair short of perfect, for a perfect sample is not known to have no spread.
    near = np.clip(auc, 0.5 / pairs, 1 - 0.5 / pairs)
    first, second = near / (2 - near), 2 * near**2 / (1 + near)
    spread = (
        near * (1 - near) + (with_look - 1) * (first - near**2) + (without - 1) * (second - near**2)
    ) / pairs  # fmt: skip
    reach = norm.ppf(0.975) * np.sqrt(np.maximum(spread, 0.0))
    p = _p(ranks, sums, has, config, key)
    return auc, np.maximum(auc - reach, 0.0), np.minimum(auc + reach, 1.0), np.where(both, p, 1.0)


def _p(ranks: Floats, sums: Floats, has: NDArray[np.bool_], config: NullConfig, key: tuple[object, ...]) -> Floats:
    """P(rank sum >= observed | looks shuffled over pictures): [F, S]."""
    random = seeded(*key)
    count = np.zeros(sums.shape, np.int64)
    for _ in range(config.permutations):
        count += ranks @ has[random.permutation(len(has))] >= sums - 1e-6
    p: Floats = (1 + count) / (1 + config.permutations)
    for style in range(has.shape[1]):
        rare = np.flatnonzero(count[:, style] < config.refine_below)
        members = int(has[:, style].sum())
        if len(rare) and 0 < members < len(has):
            # The sum over those without is as much too small as that over those with is too large.
            sign, drawn = (1, members) if 2 * members <= len(has) else (-1, len(has) - members)
            values = sign * ranks[rare].T[:, None, :]
            target = sums[rare, style] if sign > 0 else sums[rare, style] - ranks[rare].sum(axis=1)
            p[rare, style] = np.minimum(p[rare, style], tail_bound([(values, float(drawn))], target))
    return p
