"""Same-seed pairs become numbers: what was found before and after an edit, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.edits.method_names import COMPARED
from gazetteer.attribution.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    perceptual_distance,
    pooled,
    same_pictures,
)

Images = list[NDArray[np.uint8]]
Judge = Callable[[Images], list[dict[str, float]]]
"""Pictures uint8 [H, W, 3] -> per picture, of each concept found, the share 0..1 of the picture it covers."""
Classifier = Callable[[Images], list[Collection[str]]]
"""Pictures -> per picture the concepts it shows, by another witness than the judge."""
Paint = Callable[[Sequence[str], Sequence[int]], Images]
"""(prompts, seeds) -> pictures of the pipeline as it stands."""
Interval = list[float | None]
"""[mean, low, high], or None three times where there was nothing to measure."""
CHOOSE, REPORT = 0, 1
NOTHING: Interval = [None, None, None]


@dataclass(frozen=True)
class Case:
    """One prompt with its seed, the concepts it names, and the half it belongs to (CHOOSE or REPORT).

    `sought`: picked because the intact model misses the concept there, so that it says nothing of how often it does.
    """

    prompt: str
    seed: int
    named: frozenset[str]
    half: int
    sought: bool = False


@dataclass(frozen=True)
class Look:
    """A picture, what the judge found in it, its feature maps [channels, h, w] by level, and what a classifier reads.

    Maps and what is read are None where nobody looks.
    """

    image: NDArray[np.uint8]
    found: Mapping[str, float]
    maps: Sequence[NDArray[np.float32]] | None = None
    read: Collection[str] | None = None


def _none() -> NDArray[np.float64]:
    return np.empty((0, 0))


@dataclass(frozen=True)
class Outcome:
    """Found or not in same-seed pairs, per case, for one concept and one edit.

    Attributes:
        target: [cases that count for the target, 2]: found in the intact picture, in the edited one.
        area: [cases that name the target, 2]: share of the picture it covers, intact and edited.
        named: [cases that name the target, 2]: found in the intact picture, in the edited one.
        others: [cases, 2]: how many other named concepts were found, intact and edited.
        near, far: the same, of the target's neighbours and of the rest.
        unnamed: [cases that do not name the target, 2]: found in the intact picture, in the edited one.
        read: [cases that name the target, 2]: read by the classifier in the intact picture, in the edited one.
        read_others: as `others`, by the classifier.
        change: [cases that do not name the target]: mean absolute difference of the pictures, 0..1.
        distance: [cases that do not name the target]: `perceptual_distance` of the pictures; empty without features.
        features: intact and edited [cases that do not name the target, channels] each; empty without features.
        by_concept: per other concept, found intact and edited over all cases that name it.
        weights: how many the edit changed.
    """

    target: NDArray[np.float64]
    area: NDArray[np.float64]
    named: NDArray[np.float64]
    others: NDArray[np.float64]
    near: NDArray[np.float64]
    far: NDArray[np.float64]
    unnamed: NDArray[np.float64]
    read: NDArray[np.float64]
    read_others: NDArray[np.float64]
    change: NDArray[np.float64]
    by_concept: Mapping[str, tuple[int, int]]
    distance: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    features: tuple[NDArray[np.float64], NDArray[np.float64]] = field(default_factory=lambda: (_none(), _none()))
    weights: int = 0


_PAIRS = ("target", "area", "named", "others", "near", "far", "unnamed", "read", "read_others")
_TABLES = (*_PAIRS, "change", "distance")


def pack(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """The outcome as arrays, for a file."""
    names = sorted(outcome.by_concept)
    counts = np.array([outcome.by_concept[name] for name in names], dtype=np.int64).reshape(-1, 2)
    return {
        **{name: getattr(outcome, name) for name in _TABLES},
        "concepts": np.array(names, dtype=np.str_), "counts": counts, "weights": np.array(outcome.weights),
        "intact": outcome.features[0].astype(np.float32), "edited": outcome.features[1].astype(np.float32),
    }  # fmt: skip


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Outcome:
    """What `pack` packed; features come back as float32 numbers."""
    counts = zip(arrays["concepts"].tolist(), arrays["counts"].tolist(), strict=True)
    return Outcome(
        **{name: arrays[name] for name in _TABLES}, by_concept={name: (old, new) for name, (old, new) in counts},
        features=(arrays["intact"].astype(np.float64), arrays["edited"].astype(np.float64)),
        weights=int(arrays["weights"]),
    )  # fmt: skip


def compare(
    aim: str,
    concept: str,
    cases: Sequence[Case],
    intact: Sequence[Look],
    edited: Sequence[Look],
    neighbours: Collection[str] = (),
) -> Outcome:
    """Count what was found in same-seed pairs; for amplify only cases that the intact model missed count as target.

    Cases that were sought count for nothing else than the target and what the classifier says of it.
    """
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in _PAIRS}
    change: list[float] = []
    by_concept: dict[str, tuple[int, int]] = {}
    pairs: list[tuple[Look, Look]] = []
    for case, before, after in zip(cases, intact, edited, strict=True):
        had, has = set(before.found), set(after.found)
        here = (concept in had, concept in has)
        if concept in case.named:
            if aim == "erase" or concept not in had:
                rows["target"].append(here)
            if before.read is not None and after.read is not None:
                rows["read"].append((concept in before.read, concept in after.read))
        if case.sought:
            continue
        if concept in case.named:
            rows["area"].append((before.found.get(concept, 0.0), after.found.get(concept, 0.0)))
            rows["named"].append(here)
        else:
            change.append(float(np.abs(before.image.astype(np.float64) - after.image).mean() / 255))
            rows["unnamed"].append(here)
            pairs.append((before, after))
        rest = case.named - {concept}
        for name, some in (("others", rest), ("near", rest & set(neighbours)), ("far", rest - set(neighbours))):
            rows[name].append((len(some & had), len(some & has)))
        if before.read is not None and after.read is not None:
            rows["read_others"].append((len(rest & set(before.read)), len(rest & set(after.read))))
        for other in rest:
            old, new = by_concept.get(other, (0, 0))
            by_concept[other] = (old + (other in had), new + (other in has))
    found: dict[str, Any] = {n: np.array(some, dtype=np.float64).reshape(-1, 2) for n, some in rows.items()}
    return Outcome(**found, change=np.array(change), by_concept=by_concept, **_maps(pairs))


def _maps(pairs: Sequence[tuple[Look, Look]]) -> dict[str, Any]:
    read = [(one.maps, two.maps) for one, two in pairs if one.maps is not None and two.maps is not None]
    if not read:
        return {}
    return {
        "distance": np.array([perceptual_distance(one, two) for one, two in read]),
        "features": (pooled([one for one, _ in read]), pooled([two for _, two in read])),
    }


def summary(aim: str, outcomes: Sequence[Outcome], resamples: int, seed: int) -> dict[str, Interval]:
    """``target``, ``classifier``, ``area``, ``rise``, ``others``, …: [mean, low, high] each.

    ``classifier`` and ``others_classifier`` are what ``target`` and ``others`` are by the classifier's word,
    ``unnamed`` is the target where no prompt names it (erase: found edited ÷ found intact; amplify: edited − intact).
    ``rise`` is how much more often the concept is found over all cases that name it, edited − intact, −1..1: unlike the
    share of missed cases gained it is not fooled by pictures that merely change.
    The mean is over concepts; the interval resamples concepts, and cases within them. Ratios with nothing to divide
    by are left out; where nothing is left there is nothing to say: None three times.
    """
    generator = np.random.default_rng(seed)
    reads = {name: ([getattr(o, table) for o in outcomes], read) for name, (table, read) in _reads(aim).items()}
    result: dict[str, Interval] = {}
    for name, (tables, read) in reads.items():
        draws = []
        for _ in range(resamples):
            picked = [tables[i] for i in generator.integers(0, len(tables), len(tables))]
            draws.append(_mean([read(t[generator.integers(0, len(t), len(t))]) for t in picked if len(t)]))
        result[name] = _interval(_mean([read(table) for table in tables if len(table)]), draws)
    return result


def difference(
    aim: str, outcomes: Sequence[Outcome], controls: Sequence[Outcome], resamples: int, seed: int
) -> dict[str, Interval]:
    """What `summary` says of the outcomes less what it says of the controls, paired: one draw is of both.

    Args:
        outcomes, controls: of the same concepts on the same cases, in the same order.

    Returns:
        [mean over concepts, low, high] of ``target``, ``classifier``, ``area``, ``rise`` and ``others``; the interval
        resamples concepts, and cases within them, the same for both. Concepts of which one side has nothing to divide
        by are left out.
    """
    generator = np.random.default_rng(seed)
    result: dict[str, Interval] = {}
    for name in ("target", "classifier", "area", "rise", "others"):
        table, read = _reads(aim)[name]
        pairs = [(getattr(o, table), getattr(c, table)) for o, c in zip(outcomes, controls, strict=True)]
        assert all(len(one) == len(other) for one, other in pairs)
        pairs = [(one, other) for one, other in pairs if len(one)]
        draws = []
        for _ in range(resamples if pairs else 0):
            drawn = []
            for i in generator.integers(0, len(pairs), len(pairs)):
                rows = generator.integers(0, len(pairs[i][0]), len(pairs[i][0]))
                drawn.append(read(pairs[i][0][rows]) - read(pairs[i][1][rows]))
            draws.append(_mean(drawn))
        result[name] = _interval(_mean([read(one) - read(other) for one, other in pairs]), draws)
    return result


def with_differences(
    aim: str, results: dict[str, Any], outcomes: Mapping[str, Sequence[Outcome]], resamples: int, seed: int
) -> dict[str, Any]:
    """The results by method, with ``minus`` (per control `difference`) for every method one of whose controls is there.

    Args:
        outcomes: per method, of the same concepts on the same cases, in the same order.
    """
    for method, controls in COMPARED.items():
        if there := [c for c in controls if method in outcomes and c in outcomes]:
            pairs = {c: difference(aim, outcomes[method], outcomes[c], resamples, seed) for c in there}
            results[method]["minus"] = pairs
    return results


def quality(outcomes: Sequence[Outcome], resamples: int, seed: int) -> dict[str, Any]:
    """How the pictures that do not name the concepts differ from the intact model's as a set.

    Returns:
        ``fid`` (the Fréchet distance of all pairs, biased upwards), ``kid`` (`kernel_distance`: [mean, low, high]),
        ``pictures``, the pairs of all concepts, and ``distinct``, the intact pictures among them: the same few prompts
        serve several concepts. The distances are None where no features were read or fewer than 4 pictures are there,
        ``kid`` also where all are of one.
    """
    some = [o.features for o in outcomes if o.features[0].size]
    if not some or sum(len(one) for one, _ in some) < 4:
        return {"fid": None, "kid": list(NOTHING), "pictures": 0, "distinct": 0}
    one, other = (np.concatenate([pair[side] for pair in some]) for side in (0, 1))
    distinct = int(same_pictures(one).max()) + 1
    kid = kernel_distance(one, other, resamples=resamples, seed=seed) if distinct > 1 else list(NOTHING)
    return {"fid": frechet_distance(one, other), "kid": kid, "pictures": len(one), "distinct": distinct}


def interference(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, float | None]]:
    """Found edited ÷ found intact of every other concept (columns) under the edit of each concept (rows)."""
    return {
        concept: {name: (new / old if old else None) for name, (old, new) in sorted(outcome.by_concept.items())}
        for concept, outcome in outcomes.items()
    }


def interference_pictures(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, int]]:
    """What each number of `interference` is a share of: intact pictures that name the other concept and show it."""
    return {
        concept: {name: old for name, (old, _) in sorted(outcome.by_concept.items())}
        for concept, outcome in outcomes.items()
    }


def _reads(aim: str) -> dict[str, tuple[str, Callable[[NDArray[np.float64]], float]]]:
    """Per number of a summary: the table of an outcome it is read from, and how."""
    reads: dict[str, tuple[str, Callable[[NDArray[np.float64]], float]]] = {
        name: (name, _ratio) for name in ("area", "others", "near", "far")
    }
    averages = {name: (name, _average) for name in ("change", "distance")}
    erase = aim == "erase"
    return {
        "target": ("target", _ratio if erase else _gained),
        "classifier": ("read", _ratio if erase else _gained),
        "rise": ("named", _rise),
        "unnamed": ("unnamed", _ratio if erase else _rise),
        "others_classifier": ("read_others", _ratio),
        **reads, **averages,
    }  # fmt: skip


def _ratio(pairs: NDArray[np.float64]) -> float:
    before, after = pairs.sum(0)
    return float(after / before) if before else np.nan


def _gained(pairs: NDArray[np.float64]) -> float:
    """Of the cases in which it was missed, the share in which it is there now."""
    missed = pairs[pairs[:, 0] == 0]
    return float(missed[:, 1].mean()) if len(missed) else np.nan


def _rise(pairs: NDArray[np.float64]) -> float:
    return float((pairs[:, 1] - pairs[:, 0]).mean()) if len(pairs) else np.nan


def _average(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else np.nan


def _interval(mean: float, draws: Sequence[float]) -> Interval:
    """A value with the middle 95 % of what was drawn, or nothing at all."""
    defined = [draw for draw in draws if not np.isnan(draw)]
    low, high = (float(q) for q in np.quantile(defined, [0.025, 0.975])) if defined else (mean, mean)
    return list(NOTHING) if np.isnan(mean) else [mean, low, high]


def _mean(values: Sequence[float]) -> float:
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else np.nan
