"""What edits of weights do to pictures: same-seed pairs of the intact and the edited model, read by a detector.

The operating point of a method (the fraction of weights it takes) is chosen on one half of the prompts and reported on
the other; controls take the counts, layer by layer, that the method they follow takes at its own point.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gazetteer.attribution.attacks.words import Attack
from gazetteer.attribution.edits.method_names import FEATURES, leader, takes_all
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.evaluation.artifacts import artifacts
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT, Case
from gazetteer.attribution.evaluation.evaluators import Evaluators
from gazetteer.attribution.evaluation.outcomes import Outcome
from gazetteer.attribution.evaluation.pairs import PicturePairs
from gazetteer.attribution.evaluation.robustness import attacked, paraphrased
from gazetteer.attribution.evaluation.summaries import (
    interference,
    interference_pictures,
    means,
    quality,
    summary,
    with_differences,
)
from gazetteer.attribution.features.erasing import FeatureErasers


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated.

    Attributes:
        erase, amplify: the methods.
        fractions: operating points to choose among, and of the dose-response curve.
        special: fractions of methods that have their own; `raised` those to amplify, where they differ.
        most: cases per half and concept that name it, beside half as many that do not.
        seek: to amplify, pictures painted per half and concept to find up to `most` more that the intact model misses.
        others_least: an operating point should leave other concepts at this fraction of their rate or more.
        target_most: to erase, the gentlest fraction that also brings the target surely down to this is taken.
        curved: followers that are shown at all of their fractions too.
        paraphrased: methods that are also evaluated on paraphrases of the prompts that name the concept.
        attacked: erasing methods that are also evaluated with words added that were optimised against each edit.
        attack: how hard these are searched.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    erase: tuple[str, ...]
    amplify: tuple[str, ...]
    fractions: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    most: int = 12
    seek: int = 0
    others_least: float = 0.9
    target_most: float = 0.15
    special: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    raised: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    curved: tuple[str, ...] = ()
    paraphrased: tuple[str, ...] = ()
    attacked: tuple[str, ...] = ()
    attack: Attack = Attack()
    resamples: int = 1000
    seed: int = 0

    def points(self, method: str, goal: str = "erase") -> tuple[float, ...]:
        """The fractions a method may take, in ascending order."""
        own = self.special.get(method, self.fractions)
        own = self.raised.get(method, own) if goal == "amplify" else own
        return (1.0,) if takes_all(method) else tuple(sorted(own))


_GENTLER = 2
"""How often the least dose is divided by three where none keeps the other concepts."""


class EditEvaluation:
    """Every method on every concept, in same-seed pairs."""

    def __init__(
        self,
        methods: Methods,
        evaluators: Evaluators,
        cases: Sequence[Case],
        config: EvaluationConfig,
        *,
        neighbours: Mapping[str, Collection[str]] | None = None,
        cache: ResultCache | None = None,
        erasers: FeatureErasers | None = None,
    ) -> None:
        """Prepare; see `PicturePairs` for the arguments."""
        self.config, self.draws = config, (config.resamples, config.seed)
        self.pairs = PicturePairs(
            methods, evaluators, list(cases), config.most, config.seek, neighbours or {}, cache or ResultCache(),
            erasers,
        )  # fmt: skip

    def run(self, goal: str, concepts: Sequence[str], only: Collection[str] = ()) -> dict[str, Any]:
        """Every method of a goal, or only some, the reference and whatever they follow, on every concept.

        Returns:
            per method, on the reporting half, what `summary` says with a 95 % bootstrap interval over concepts and
            cases: ``target`` is, for erase, found edited ÷ found intact over cases that name the concept; for
            amplify, the fraction of cases the intact model missed in which the edited one shows it; ``others`` is found
            edited ÷ found intact over all other named concepts, ``near`` and ``far`` the neighbours and the rest.
            Beside them ``artifacts`` (see `artifacts`; of the pictures that name the concept), ``by_concept``
            (`summary` of each alone, no intervals), ``quality``, ``interference`` with ``interference_pictures``,
            ``weights`` (how many, mean over concepts), ``seconds`` (of CPU to make the edit of a concept, the mean of
            those measured, or None), ``fraction`` (the operating point),
            ``curve`` (per fraction `summary` on the choosing half), ``too_strong`` (the method chooses its dose, and
            none keeps the others), ``minus`` (per control of the method, `COMPARED`: `difference` of the two) and,
            where asked for, ``paraphrased`` and ``attacked``, each with how many prompts were ``left_out`` because the
            tokenizer would cut them; ``attacked`` also says the ``words`` and of which concepts they are the name
            (``names_it``), or only why it was ``skipped``.
        """
        methods = self.config.erase if goal == "erase" else self.config.amplify
        if self.pairs.erasers is None:
            methods = tuple(method for method in methods if method not in FEATURES)
        reference = self.pairs.methods.config.reference
        wanted = {m for m in methods if not only or m in only or m == reference}
        wanted |= {leader(m, reference) for m in wanted}
        methods = tuple(m for m in methods if m in wanted)
        leaders = {leader(m, reference) for m in methods}
        results: dict[str, Any] = {}
        points: dict[str, float] = {}
        reported: dict[str, list[Outcome]] = {}
        # Followers need to know what is taken by the method they follow; else in the order given.
        for method in sorted(methods, key=lambda name: name not in leaders):
            followed = points.get(leader(method, reference))
            drawn = followed is None or method in self.config.curved
            curve = self.curve(goal, method, concepts) if drawn else {}
            if followed is None:
                curve = self._gentler(goal, method, concepts, curve)
            fraction = points[method] = self._best(goal, method, curve) if followed is None else followed
            outcomes = {c: self.pairs.outcome(goal, method, c, fraction, REPORT) for c in concepts}
            results[method] = self._reported(goal, method, outcomes, fraction, curve)
            chosen = followed is None and bool(curve)
            results[method]["too_strong"] = chosen and not any(self._keeps(goal, many) for many in curve.values())
            reported[method] = list(outcomes.values())
        return with_differences(goal, results, reported, *self.draws)

    def _reported(
        self, goal: str, method: str, outcomes: Mapping[str, Outcome], fraction: float,
        curve: Mapping[float, Sequence[Outcome]],
    ) -> dict[str, Any]:  # fmt: skip
        """What is said of one method at its operating point; see `run`."""
        several, concepts = list(outcomes.values()), list(outcomes)
        result = {
            **self._summary(goal, several),
            "by_concept": {c: means(summary(goal, [o], 0, 0)) for c, o in outcomes.items()},
            "quality": quality(several, min(200, self.config.resamples), self.config.seed),
            "artifacts": artifacts(several, self.pairs.reference(), *self.draws),
            "interference": interference(outcomes),
            "interference_pictures": interference_pictures(outcomes),
            "fraction": fraction,
            "weights": float(np.mean([outcome.weights for outcome in several])),
            "seconds": self._seconds(goal, method, concepts, {fraction, *curve}),
            "concepts": concepts,
            "curve": [{"fraction": dose, **self._summary(goal, outcomes_at)} for dose, outcomes_at in curve.items()],
        }
        if method in self.config.paraphrased:
            result["paraphrased"] = paraphrased(self.pairs, goal, method, concepts, fraction, self.draws)
        if method in self.config.attacked:
            result["attacked"] = attacked(self.pairs, method, concepts, fraction, self.config.attack, self.draws)
        return result

    def _seconds(self, goal: str, method: str, concepts: Sequence[str], fractions: Collection[float]) -> float | None:
        each = [self.pairs.seconds(goal, method, concept, fractions) for concept in concepts]
        known = [value for value in each if value is not None]
        return float(np.mean(known)) if known else None

    def curve(self, goal: str, method: str, concepts: Sequence[str]) -> dict[float, list[Outcome]]:
        """Dose and response on the choosing half: outcomes by fraction; empty where only one can be taken."""
        fractions = self.config.points(method, goal)
        many = fractions if len(fractions) > 1 else ()
        return {
            fraction: [self.pairs.outcome(goal, method, c, fraction, CHOOSE) for c in concepts] for fraction in many
        }

    def blocked(self, concepts: Sequence[str]) -> dict[str, Any]:
        """The trivial baseline: the word is taken out of the prompt and the model left alone.

        ``left_out``: prompts that name a concept by a word that is not found in them, such as a synonym.
        """
        outcomes = {c: self.pairs.blocking(c) for c in concepts}
        over_all = self._summary("erase", list(outcomes.values()))
        each = {c: means(summary("erase", [o], 0, 0)) for c, o in outcomes.items()}
        left = sum(len(self.pairs.relevant(c, REPORT)) - len(self.pairs.blockable(c)) for c in concepts)
        return {
            **over_all, "by_concept": each, "left_out": left,
            "artifacts": artifacts(list(outcomes.values()), self.pairs.reference(), *self.draws),
            "interference": interference(outcomes), "interference_pictures": interference_pictures(outcomes),
            "concepts": list(concepts),
        }  # fmt: skip

    def _gentler(
        self, goal: str, method: str, concepts: Sequence[str], curve: dict[float, list[Outcome]]
    ) -> dict[float, list[Outcome]]:
        """The curve, begun by a third and a ninth of its least dose where no dose keeps the others."""
        for _ in range(_GENTLER if curve else 0):
            if any(self._keeps(goal, many) for many in curve.values()):
                break
            less = float(f"{min(curve) / 3:.2g}")
            curve = {less: [self.pairs.outcome(goal, method, c, less, CHOOSE) for c in concepts], **curve}
        return curve

    def _keeps(self, goal: str, outcomes: Sequence[Outcome]) -> bool:
        """Whether a dose keeps the others, as far as anything is known of them."""
        others = summary(goal, outcomes, 0, 0)["others"][0]
        return others is None or others >= self.config.others_least

    def _best(self, goal: str, method: str, curve: Mapping[float, Sequence[Outcome]]) -> float:
        """The gentlest fraction that surely reaches the goal, else the one with the best target; both must keep others.

        Where none keeps them it is the gentlest, which the result says (``too_strong``).

        Surely: the upper end of the target's 95 % interval does; none of n pictures is 15 % at most where n is 22. The
        gentlest of several whose mean happens to reach it on a few pictures is too gentle. For the same reason there is
        one fraction for all concepts.
        """
        best, best_value = min(curve or self.config.points(method, goal)), -np.inf
        for fraction, outcomes in curve.items():
            target, _, high = self._summary(goal, outcomes)["target"]
            if target is None or not self._keeps(goal, outcomes):
                continue
            value = -target if goal == "erase" else target
            if goal == "erase" and high is not None and high <= self.config.target_most:
                return fraction
            if value > best_value:
                best, best_value = fraction, value
        return best

    def _summary(self, goal: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        return summary(goal, outcomes, *self.draws)


def together(evaluation: EditEvaluation, parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Erasing all concepts of the parts, by the methods that all parts have; nothing is measured again.

    Args:
        evaluation: whose cache holds the outcomes of the parts.
        parts: what `EditEvaluation.run` gave, and under ``blocking`` what `EditEvaluation.blocked` gave; each method
            keeps the fraction that it has in the part.

    Returns:
        per method `summary` over the concepts of all parts, ``concepts``, and ``minus`` as in `EditEvaluation.run`.
    """

    def read(method: str, figures: Mapping[str, Any]) -> list[Outcome]:
        if method == "blocking":
            return [evaluation.pairs.blocking(concept) for concept in figures["concepts"]]
        return [evaluation.pairs.outcome("erase", method, c, figures["fraction"], REPORT) for c in figures["concepts"]]

    outcomes, results, draws = {}, {}, evaluation.draws
    for method in [m for m in parts[0] if all(m in part for part in parts)]:
        outcomes[method] = [outcome for part in parts for outcome in read(method, part[method])]
        results[method] = {
            **summary("erase", outcomes[method], *draws),
            "concepts": [concept for part in parts for concept in part[method]["concepts"]],
        }
    return with_differences("erase", results, outcomes, *draws)
