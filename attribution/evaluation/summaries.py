"""Outcomes become numbers with intervals: what is left of a concept and of the others, beside a control or alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.attribution.edits.method_names import COMPARED
from gazetteer.attribution.evaluation.distances import frechet_distance, kernel_distance, same_pictures
from gazetteer.attribution.evaluation.outcomes import Outcome
from gazetteer.labeling.quality.intervals import Interval, Statistic, nested_bootstrap, never_certain

NOTHING: Interval = [None, None, None]


def summary(
    goal: str, outcomes: Sequence[Outcome], resamples: int, seed: int, *,
    drawn: Sequence[Sequence[int]] | None = None,
) -> dict[str, Interval]:  # fmt: skip
    """``target``, ``classifier``, ``area``, ``rise``, ``others``, …: [mean, low, high] each.

    ``classifier`` and ``others_classifier`` are what ``target`` and ``others`` are by the classifier's word,
    ``unnamed`` is the target where no prompt names it (erase: found edited ÷ found intact; amplify: edited − intact).
    ``rise`` is how much more often the concept is found over all cases that name it, edited − intact, −1..1: unlike the
    fraction of missed cases gained it is not fooled by pictures that merely change.
    The mean is over concepts; the interval resamples concepts, and cases within them. Ratios with nothing to divide
    by are left out; where nothing is left there is nothing to say: None three times. None of n and all of n are never
    certain: see `never_certain`.

    Args:
        drawn: per outcome, whose cases all name the concept, a number of each case; those of one number (the same
            noise and nearly the same prompt) are drawn together. None: every case by itself.
    """
    result: dict[str, Interval] = {}
    for name, number in _numbers(goal).items():
        tables = [getattr(outcome, number.table) for outcome in outcomes]
        members: list[Sequence[int]] = [range(len(table)) for table in tables]
        if drawn is not None:
            members = [_numbered(o, t, own) for o, t, own in zip(outcomes, tables, drawn, strict=True)]
        statistics = [_by_member(partial(number.read, t), own) for t, own in zip(tables, members, strict=True)]
        sizes = [len(set(own)) for own in members]
        intervals = nested_bootstrap(statistics, sizes, resamples=resamples, seed=seed)
        trials = sum(number.trials(t) * size / max(1, len(t)) for t, size in zip(tables, sizes, strict=True))
        result[name] = never_certain(intervals, trials, number.least)
    return result


def _numbered(outcome: Outcome, table: NDArray[np.float64], drawn: Sequence[int]) -> list[int]:
    """The numbers of a table's rows: of all cases that name the concept, or of those in which it was missed."""
    if len(table) in (0, len(drawn)):
        return list(drawn[: len(table)])
    missed: list[int] = np.asarray(drawn)[outcome.named[:, 0] == 0].tolist()
    return missed


def _by_member(read: Statistic, members: Sequence[int]) -> Statistic:
    """A statistic of rows as one of what is drawn: every row counts as often as the member that it is of."""
    rows = np.unique(np.asarray(members, dtype=np.int64), return_inverse=True)[1]
    return lambda weights: read(weights[:, rows])


def difference(
    goal: str, outcomes: Sequence[Outcome], controls: Sequence[Outcome], resamples: int, seed: int
) -> dict[str, Interval]:
    """What `summary` says of the outcomes less what it says of the controls, paired: one draw is of both.

    Args:
        outcomes, controls: of the same concepts on the same cases, in the same order.

    Returns:
        [mean over concepts, low, high] of ``target``, ``classifier``, ``area``, ``rise`` and ``others``; the interval
        resamples concepts, and cases within them, the same for both. Concepts of which one side has nothing to divide
        by are left out. No difference in any of n pictures is never certain either.
    """
    result: dict[str, Interval] = {}
    for name in ("target", "classifier", "area", "rise", "others"):
        number = _numbers(goal)[name]
        pairs = [(getattr(o, number.table), getattr(c, number.table)) for o, c in zip(outcomes, controls, strict=True)]
        assert all(len(first) == len(second) for first, second in pairs)
        pairs = [(first, second) for first, second in pairs if len(first)]
        statistics = [partial(_less, number.read, first, second) for first, second in pairs]
        intervals = nested_bootstrap(statistics, [len(first) for first, _ in pairs], resamples=resamples, seed=seed)
        result[name] = never_certain(intervals, sum(number.trials(first) for first, _ in pairs), -1.0)
    return result


def shown(
    values: Sequence[NDArray[np.float64]], resamples: int, seed: int, *, least: float = 0.0,
    drawn: Sequence[Sequence[int]] | None = None,
) -> Interval:  # fmt: skip
    """How often something is there: [mean over concepts, low, high], concepts and pictures within them resampled.

    Args:
        values: per concept 1 or 0 of every picture (or, with ``least`` -1, differences of such numbers).
        least: the lowest value there can be.
        drawn: per concept a number of every picture; those of one number are drawn together. None: each by itself.
    """
    members: Sequence[Sequence[int]] = [range(len(sample)) for sample in values] if drawn is None else drawn
    statistics = [_by_member(partial(_average, v), own) for v, own in zip(values, members, strict=True)]
    sizes = [len(set(own)) for own in members]
    return never_certain(nested_bootstrap(statistics, sizes, resamples=resamples, seed=seed), float(sum(sizes)), least)


def with_differences(
    goal: str, results: dict[str, Any], outcomes: Mapping[str, Sequence[Outcome]], resamples: int, seed: int
) -> dict[str, Any]:
    """The results by method, with ``minus`` (per control `difference`) for every method one of whose controls is there.

    Args:
        outcomes: per method, of the same concepts on the same cases, in the same order.
    """
    for method, controls in COMPARED.items():
        if present := [c for c in controls if method in outcomes and c in outcomes]:
            pairs = {c: difference(goal, outcomes[method], outcomes[c], resamples, seed) for c in present}
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
    activities = [o.features for o in outcomes if o.features[0].size]
    if not activities or sum(len(own) for own, _ in activities) < 4:
        return {"fid": None, "kid": list(NOTHING), "pictures": 0, "distinct": 0}
    own, others = (np.concatenate([pair[side] for pair in activities]) for side in (0, 1))
    distinct = int(same_pictures(own).max()) + 1
    kid = kernel_distance(own, others, resamples=resamples, seed=seed) if distinct > 1 else list(NOTHING)
    return {"fid": frechet_distance(own, others), "kid": kid, "pictures": len(own), "distinct": distinct}


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


Read = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""A table of cases and how much each case counts, [samples, cases], to a number a sample; NaN for 0 / 0."""


@dataclass(frozen=True)
class _Number:
    """A number of a summary.

    Attributes:
        table: of an outcome, that it is read from.
        read: how.
        trials: what it is a fraction of in a table, in pictures (or concepts in them); 0 for what is no count.
        least: the lowest that it can be.
    """

    table: str
    read: Read
    trials: Callable[[NDArray[np.float64]], float]
    least: float = 0.0


def _numbers(goal: str) -> dict[str, _Number]:
    """By name the numbers of a summary."""
    erase = goal == "erase"

    def found(table: str) -> _Number:
        return _Number(table, _ratio, _before) if erase else _Number(table, _gained, _missed)

    rises = {"rise": "named"} if erase else {"rise": "named", "unnamed": "unnamed"}
    ratios = {name: name for name in ("others", "near", "far")} | {"others_classifier": "read_others"}
    return {
        "target": found("target"),
        "classifier": found("read"),
        **{name: _Number(table, _ratio, _before) for name, table in ratios.items()},
        **({"unnamed": _Number("unnamed", _ratio, _before)} if erase else {}),
        **{name: _Number(table, _rise, len, -1.0) for name, table in rises.items()},
        "area": _Number("area", _ratio, _no_count),
        **{name: _Number(name, _average, _no_count) for name in ("change", "distance")},
    }


def _before(pairs: NDArray[np.float64]) -> float:
    return float(pairs[:, 0].sum())


def _missed(pairs: NDArray[np.float64]) -> float:
    return float((pairs[:, 0] == 0).sum())


def _no_count(_: NDArray[np.float64]) -> float:
    return 0.0


def _ratio(pairs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    before, after = (weights @ pairs).T
    return _fraction(after, before)


def _gained(pairs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the cases in which it was missed, the fraction in which it is there now."""
    missed = (pairs[:, 0] == 0).astype(float)
    return _fraction(weights @ (missed * pairs[:, 1]), weights @ missed)


def _rise(pairs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return _average(pairs[:, 1] - pairs[:, 0], weights)


def _average(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return _fraction(weights @ values, weights.sum(axis=1))


def _less(
    read: Read, first: NDArray[np.float64], second: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What is read of one table less what is read of another, on the same cases."""
    return read(first, weights) - read(second, weights)


def _fraction(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def means(intervals: Mapping[str, Interval]) -> dict[str, float | None]:
    """A summary without its intervals."""
    return {name: interval[0] for name, interval in intervals.items()}
