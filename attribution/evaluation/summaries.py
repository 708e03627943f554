"""Outcomes become numbers with intervals: what is left of a concept and of the others, beside a control or alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.edits.method_names import COMPARED
from gazetteer.attribution.evaluation.distances import frechet_distance, kernel_distance, same_pictures
from gazetteer.attribution.evaluation.outcomes import Outcome

Interval = list[float | None]
"""[mean, low, high], or None three times where there was nothing to measure."""
NOTHING: Interval = [None, None, None]


def summary(goal: str, outcomes: Sequence[Outcome], resamples: int, seed: int) -> dict[str, Interval]:
    """``target``, ``classifier``, ``area``, ``rise``, ``others``, …: [mean, low, high] each.

    ``classifier`` and ``others_classifier`` are what ``target`` and ``others`` are by the classifier's word,
    ``unnamed`` is the target where no prompt names it (erase: found edited ÷ found intact; amplify: edited − intact).
    ``rise`` is how much more often the concept is found over all cases that name it, edited − intact, −1..1: unlike the
    fraction of missed cases gained it is not fooled by pictures that merely change.
    The mean is over concepts; the interval resamples concepts, and cases within them. Ratios with nothing to divide
    by are left out; where nothing is left there is nothing to say: None three times.
    """
    generator = np.random.default_rng(seed)
    reads = {name: ([getattr(o, table) for o in outcomes], read) for name, (table, read) in _reads(goal).items()}
    result: dict[str, Interval] = {}
    for name, (tables, read) in reads.items():
        draws = []
        for _ in range(resamples):
            picked = [tables[i] for i in generator.integers(0, len(tables), len(tables))]
            draws.append(_mean([read(t[generator.integers(0, len(t), len(t))]) for t in picked if len(t)]))
        result[name] = _interval(_mean([read(table) for table in tables if len(table)]), draws)
    return result


def difference(
    goal: str, outcomes: Sequence[Outcome], controls: Sequence[Outcome], resamples: int, seed: int
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
        table, read = _reads(goal)[name]
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
    goal: str, results: dict[str, Any], outcomes: Mapping[str, Sequence[Outcome]], resamples: int, seed: int
) -> dict[str, Any]:
    """The results by method, with ``minus`` (per control `difference`) for every method one of whose controls is there.

    Args:
        outcomes: per method, of the same concepts on the same cases, in the same order.
    """
    for method, controls in COMPARED.items():
        if there := [c for c in controls if method in outcomes and c in outcomes]:
            pairs = {c: difference(goal, outcomes[method], outcomes[c], resamples, seed) for c in there}
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
    """What each number of `interference` is a fraction of: intact pictures that name the other concept and show it."""
    return {
        concept: {name: old for name, (old, _) in sorted(outcome.by_concept.items())}
        for concept, outcome in outcomes.items()
    }


def _reads(goal: str) -> dict[str, tuple[str, Callable[[NDArray[np.float64]], float]]]:
    """Per number of a summary: the table of an outcome it is read from, and how."""
    reads: dict[str, tuple[str, Callable[[NDArray[np.float64]], float]]] = {
        name: (name, _ratio) for name in ("area", "others", "near", "far")
    }
    averages = {name: (name, _average) for name in ("change", "distance")}
    erase = goal == "erase"
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
    """Of the cases in which it was missed, the fraction in which it is there now."""
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


def means(found: Mapping[str, Interval]) -> dict[str, float | None]:
    """A summary without its intervals."""
    return {name: interval[0] for name, interval in found.items()}
