"""What edits of weights do to pictures: same-seed pairs of the intact and the edited model, judged by a detector.

The operating point of a method (the share of weights it takes) is chosen on one half of the prompts and reported on
the other; controls take the counts that `cad` takes at its own point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution.delta import applied
from attribution.estimators import CONTROLS
from attribution.methods import Methods
from data.errors import InputError

Images = list[NDArray[np.uint8]]
Judge = Callable[[Images], list[set[str]]]
"""Pictures uint8 [H, W, 3] -> the concepts found in each."""
Paint = Callable[[Sequence[str], Sequence[int]], Images]
"""(prompts, seeds) -> pictures of the pipeline as it stands."""
Interval = list[float | None]
"""[mean, low, high], or None three times where there was nothing to measure."""
CHOOSE, REPORT = 0, 1


@dataclass(frozen=True)
class Case:
    """One prompt with its seed, the concepts it names, and the half it belongs to (CHOOSE or REPORT)."""

    prompt: str
    seed: int
    named: frozenset[str]
    half: int


@dataclass(frozen=True)
class Protocol:
    """What is evaluated.

    Attributes:
        erase, amplify: the methods.
        shares: operating points to choose among.
        most: cases per half and concept that name it, and as many that do not.
        kept: an operating point should leave other concepts at this share of their rate or more.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    erase: tuple[str, ...]
    amplify: tuple[str, ...]
    shares: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    most: int = 12
    kept: float = 0.9
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """Found or not in same-seed pairs, as counts per case, for one concept and one edit.

    Attributes:
        target: [cases that count for the target, 2]: found in the intact picture, in the edited one.
        others: [cases, 2]: how many other named concepts were found, intact and edited.
        change: [cases that do not name the target]: mean absolute difference of the pictures, 0..1.
        by_concept: per other concept, found intact and edited over all cases that name it.
    """

    target: NDArray[np.float64]
    others: NDArray[np.float64]
    change: NDArray[np.float64]
    by_concept: Mapping[str, tuple[int, int]]


class Evaluation:
    """Paints, judges, compares; intact pictures are painted once."""

    def __init__(self, methods: Methods, paint: Paint, judge: Judge, cases: Sequence[Case], protocol: Protocol) -> None:
        self.methods, self.paint, self.judge = methods, paint, judge
        self.cases, self.protocol = list(cases), protocol
        self._intact: dict[Case, tuple[NDArray[np.uint8], set[str]]] = {}

    def run(self, aim: str, concepts: Sequence[str]) -> dict[str, Any]:
        """Every method of an aim on every concept.

        Returns:
            per method ``target``, ``others``, ``change``, each [mean, low, high] with a 95 % bootstrap interval
            over concepts and cases; ``share`` chosen per concept, ``interference`` (concept -> other -> ratio) and
            ``concepts``. ``target`` is, for erase, found edited ÷ found intact over cases that name the concept;
            for amplify, the share of cases the intact model missed in which the edited one shows it. ``others`` is
            found edited ÷ found intact over all other named concepts. All on the reporting half.
        """
        methods = self.protocol.erase if aim == "erase" else self.protocol.amplify
        results: dict[str, Any] = {}
        points: dict[str, float] = {}
        for method in sorted(methods, key=lambda name: (name != "cad", name in CONTROLS)):
            outcomes, shares = {}, {}
            for concept in concepts:
                share = points[concept] if method in CONTROLS and concept in points else None
                share = self.choose(aim, method, concept) if share is None else share
                if method == "cad":
                    points[concept] = share
                outcomes[concept] = self.outcome(aim, method, concept, share, REPORT)
                shares[concept] = share
            results[method] = {
                **summary(aim, list(outcomes.values()), self.protocol.resamples, self.protocol.seed),
                "share": shares,
                "interference": {c: _ratios(o.by_concept) for c, o in outcomes.items()},
                "concepts": list(concepts),
            }
        return results

    def choose(self, aim: str, method: str, concept: str) -> float:
        """The share with the best target on the choosing half among those that keep others, else the gentlest."""
        best, best_value = min(self.protocol.shares), -np.inf
        for share in self.protocol.shares if len(self.protocol.shares) > 1 else ():
            found = summary(aim, [self.outcome(aim, method, concept, share, CHOOSE)], 0, 0)
            kept, target = found["others"][0], found["target"][0]
            if target is None or (kept is not None and kept < self.protocol.kept):
                continue
            value = -target if aim == "erase" else target
            if value > best_value:
                best, best_value = share, value
        return best

    def outcome(self, aim: str, method: str, concept: str, share: float, half: int) -> Outcome:
        """Paint the cases of a half with and without the edit, and count."""
        cases = self.relevant(concept, half)
        intact = self.intact(cases)
        with applied(self.methods.unet, self.methods.edit(aim, method, concept, share)):
            edited = self._look(cases)
        return compare(aim, concept, cases, intact, edited)

    def blocked(self, concepts: Sequence[str]) -> dict[str, Any]:
        """The trivial baseline: the word is taken out of the prompt and the model left alone."""
        outcomes = []
        for concept in concepts:
            cases = self.relevant(concept, REPORT)
            prompts = [self.methods.without(case.prompt, concept) for case in cases]
            images = self.paint(prompts, [case.seed for case in cases])
            edited = list(zip(images, self.judge(images), strict=True))
            outcomes.append(compare("erase", concept, cases, self.intact(cases), edited))
        return {**summary("erase", outcomes, self.protocol.resamples, self.protocol.seed), "concepts": list(concepts)}

    def relevant(self, concept: str, half: int) -> list[Case]:
        """The first `most` cases of a half that name the concept, and as many that do not; InputError if none does."""
        mine = [c for c in self.cases if c.half == half and concept in c.named][: self.protocol.most]
        if not mine:
            raise InputError(f"No prompt of the evaluation names {concept!r}; give more prompts or other concepts.")
        return mine + [c for c in self.cases if c.half == half and concept not in c.named][: self.protocol.most]

    def intact(self, cases: Sequence[Case]) -> list[tuple[NDArray[np.uint8], set[str]]]:
        """Pictures and findings of the intact model."""
        new = [case for case in dict.fromkeys(cases) if case not in self._intact]
        self._intact.update(zip(new, self._look(new), strict=True))
        return [self._intact[case] for case in cases]

    def rates(self, half: int) -> dict[str, tuple[float, float]]:
        """Per concept named on a half: how often the intact model shows it where it is named, and where it is not."""
        cases = [case for case in self.cases if case.half == half]
        found = [has for _, has in self.intact(cases)]
        rates = {}
        for concept in sorted(set().union(*(case.named for case in cases))):
            shown: tuple[list[bool], list[bool]] = ([], [])
            for case, has in zip(cases, found, strict=True):
                shown[concept not in case.named].append(concept in has)
            rates[concept] = (float(np.mean(shown[0])), float(np.mean(shown[1])) if shown[1] else 0.0)
        return rates

    def _look(self, cases: Sequence[Case]) -> list[tuple[NDArray[np.uint8], set[str]]]:
        if not cases:
            return []
        images = self.paint([case.prompt for case in cases], [case.seed for case in cases])
        return list(zip(images, self.judge(images), strict=True))


def compare(
    aim: str,
    concept: str,
    cases: Sequence[Case],
    intact: Sequence[tuple[NDArray[np.uint8], set[str]]],
    edited: Sequence[tuple[NDArray[np.uint8], set[str]]],
) -> Outcome:
    """Count what was found in same-seed pairs; for amplify only cases that the intact model missed count as target."""
    target, others, change = [], [], []
    by_concept: dict[str, tuple[int, int]] = {}
    for case, (before, had), (after, has) in zip(cases, intact, edited, strict=True):
        if concept in case.named and (aim == "erase" or concept not in had):
            target.append((concept in had, concept in has))
        elif concept not in case.named:
            change.append(float(np.abs(before.astype(np.float64) - after.astype(np.float64)).mean() / 255))
        rest = case.named - {concept}
        others.append((len(rest & had), len(rest & has)))
        for other in rest:
            old, new = by_concept.get(other, (0, 0))
            by_concept[other] = (old + (other in had), new + (other in has))
    pairs = [np.array(rows, dtype=np.float64).reshape(-1, 2) for rows in (target, others)]
    return Outcome(pairs[0], pairs[1], np.array(change), by_concept)


def summary(aim: str, outcomes: Sequence[Outcome], resamples: int, seed: int) -> dict[str, Interval]:
    """``target``, ``others`` and ``change`` over concepts, each [mean, low, high].

    The mean is over concepts; the interval resamples concepts, and cases within them. Ratios with nothing to divide
    by are left out; where nothing is left there is nothing to say: None three times.
    """
    generator = np.random.default_rng(seed)
    reads: dict[str, tuple[list[NDArray[np.float64]], Callable[[NDArray[np.float64]], float]]] = {
        "target": ([o.target for o in outcomes], _ratio if aim == "erase" else _gained),
        "others": ([o.others for o in outcomes], _ratio),
        "change": ([o.change for o in outcomes], lambda rows: float(rows.mean()) if len(rows) else np.nan),
    }
    result: dict[str, Interval] = {}
    for name, (tables, read) in reads.items():
        draws = []
        for _ in range(resamples):
            picked = [tables[i] for i in generator.integers(0, len(tables), len(tables))]
            draws.append(_mean([read(t[generator.integers(0, len(t), len(t))]) for t in picked if len(t)]))
        mean = _mean([read(table) for table in tables])
        defined = [draw for draw in draws if not np.isnan(draw)]
        low, high = (float(q) for q in np.quantile(defined, [0.025, 0.975])) if defined else (mean, mean)
        result[name] = [None] * 3 if np.isnan(mean) else [mean, low, high]
    return result


def _ratio(pairs: NDArray[np.float64]) -> float:
    before, after = pairs.sum(0)
    return float(after / before) if before else np.nan


def _gained(pairs: NDArray[np.float64]) -> float:
    return float(pairs[:, 1].mean()) if len(pairs) else np.nan


def _mean(values: Sequence[float]) -> float:
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else np.nan


def _ratios(by_concept: Mapping[str, tuple[int, int]]) -> dict[str, float | None]:
    return {name: (new / old if old else None) for name, (old, new) in sorted(by_concept.items())}
