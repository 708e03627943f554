"""Ways to erase or amplify a concept by its weights, and their controls: (method, concept, fraction) -> edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.edits.closed_form import concept_edit
from gazetteer.attribution.edits.delta import Delta, ablation
from gazetteer.attribution.edits.method_names import TUNED, accepted, leader, takes_all
from gazetteer.attribution.edits.problems import ConceptProblems, MethodConfig
from gazetteer.attribution.edits.repair import zero_and_repair
from gazetteer.attribution.edits.tune import gradient_steps
from gazetteer.attribution.objective.problem import Scores
from gazetteer.attribution.scores.controls import CONTROLS
from gazetteer.attribution.scores.estimators import Options, estimate
from gazetteer.attribution.scores.selection import (
    PRESETS,
    Chosen,
    Selection,
    Supply,
    count,
    random_like,
    require_some,
    select,
    supply,
)
from gazetteer.data.core.digests import digest_json


class Methods:
    """All methods on one pipeline; scores are computed once per concept and kept."""

    def __init__(
        self,
        pipe: Any,
        config: MethodConfig,
        concepts: Sequence[str],
        prompts: Mapping[str, frozenset[str]],
        without: Callable[[str, str], str],
    ) -> None:
        """Prepare.

        Args:
            concepts: all concepts to tell apart.
            prompts: prompts that edits may be made from (never those reported on), and the concepts each names.
            without: (prompt, concept) -> the prompt without the concept.

        Raises:
            InputError: an unknown scope.
        """
        self.pipe, self.config, self.concepts = pipe, config, tuple(concepts)
        self.problems = ConceptProblems(pipe, config, prompts, without)
        self.without, self.weights, self.wide = without, self.problems.weights, self.problems.wide
        self._known: dict[tuple[str, ...], Scores] = {}
        self._edits: dict[tuple[str, ...], Delta] = {}

    @property
    def denoiser(self) -> nn.Module:
        """The network under study."""
        return self.problems.denoiser

    def edit(self, goal: str, method: str, concept: str, fraction: float) -> Delta:
        """The edit of a method.

        Args:
            goal: ``erase`` or ``amplify``.
            fraction: of the weights of the method's scope.

        Raises:
            InputError: unknown goal or method.
        """
        accepted(goal, method)
        key = (goal, method, concept, "" if takes_all(method) else str(fraction))
        if key not in self._edits:
            self._edits[key] = self._edit(goal, method, concept, fraction)
        return self._edits[key]

    def _edit(self, goal: str, method: str, concept: str, fraction: float) -> Delta:
        c = self.config
        taken = 1.0 if takes_all(method) else fraction
        about = {"goal": goal, "method": method, "concept": concept, "fraction": taken, "config": vars(c)}
        if method == "uce":
            others = [c.template.format(other) for other in self.concepts if other != concept]
            return concept_edit(
                self.pipe, self.wide, c.template.format(concept), c.base, others, provenance=about
            )  # fmt: skip
        if method == "repaired":
            return zero_and_repair(
                self.weights, self.choose(goal, "cad", concept, fraction), self.problems.held(concept),
                steps=c.repair_steps, rate=c.repair_rate, provenance=about,
            )  # fmt: skip
        chosen, loss = self.choose(goal, method, concept, fraction), method.partition("_")[0]
        if loss not in TUNED:
            return ablation({**self.weights, **self.wide}, chosen, about)
        return gradient_steps(
            self.problems.problem(goal, concept, "context" if loss == "steps" else loss), chosen,
            steps=c.tune_steps, rate=self._rate(chosen), provenance=about,
            renew=self.problems.esd(concept) if loss == "esd" else None,
        )  # fmt: skip

    def choose(self, goal: str, method: str, concept: str, fraction: float) -> Chosen:
        """The weights a method takes; followers take as many of each layer as their `leader` does at this fraction."""
        c, method = self.config, "cad" if method == "repaired" else method
        if method.endswith("_all"):
            return {name: torch.arange(w.numel()) for name, w in self.wide.items()}
        if not (followed := leader(method, c.reference)):
            return select(*self._ranked(goal, method, concept, fraction))
        counts = self.choose(goal, followed, concept, fraction)
        if method in TUNED:
            return counts
        weights = {**self.weights, **self.wide}
        if method.endswith("random"):
            # Of each concept other weights: one draw for all of them would be one control, not as many as concepts.
            return random_like(counts, weights, int(digest_json([c.seed, concept])[:12], 16))
        scores = self.scores(goal, method, concept)
        # Controls rank by a number that has no sign: the highest, in equal numbers per layer.
        return {
            name: scores[name].reshape(-1).sort(descending=True, stable=True).indices[: len(index)].sort().values
            for name, index in counts.items()
        }

    def supply(self, goal: str, method: str, concept: str, fraction: float) -> Supply | None:
        """How many weights a method, or its `leader`, asks for at a fraction, and how many it could take; None of one
        that changes its whole scope."""
        if takes_all(method):
            return None
        method = "cad" if method == "repaired" else method
        ranking = leader(method, self.config.reference) or method
        chosen = self.choose(goal, ranking, concept, fraction)
        return supply(*self._ranked(goal, ranking, concept, fraction), chosen)

    def require_some(self, goal: str, method: str, fraction: float) -> None:
        """Raise InputError, before anything is sampled, for a fraction that takes no weight, whatever the scores."""
        if not takes_all(method):
            method = "cad" if method == "repaired" else method
            ranking = leader(method, self.config.reference) or method
            wide = ranking in ("iterated", "steps")
            require_some(
                self.wide if wide else self.weights, self._selection(goal, ranking, fraction), "raise --fraction"
            )

    def _ranked(self, goal: str, method: str, concept: str, fraction: float) -> tuple[Scores, Selection]:
        """The scores by which a method that follows none chooses, and how."""
        return self.scores(goal, method, concept, fraction), self._selection(goal, method, fraction)

    def _selection(self, goal: str, method: str, fraction: float) -> Selection:
        if method in ("iterated", "steps"):
            return Selection(fraction, "global")
        per = PRESETS["cad"].selection.per if method == "published" else self.config.per
        return Selection(fraction, per, "positive" if goal == "erase" else "negative")

    def scores(self, goal: str, method: str, concept: str, fraction: float = 0.0) -> Scores:
        """α of every weight of the scope under a method.

        ``cad`` (and ``repaired``, which zeroes the same): the published estimator and objective, every x_t with its own
        timestep. ``published``: every x_t with the timestep of the step that led to it, as the released code pairs
        them. ``live``: cad without the stop-gradient. ``contrast``: cad, each concept's α divided by the sum of |α|,
        minus the largest among the other concepts (for amplify: plus): what a weight does for this concept beyond what
        it does for any other.
        ``iterated``: see `iterated`, on `context_samples`. ``steps``: |dJ/dw| there, the weights whose small moves
        matter most. Controls: see `estimators`.
        """
        method = "cad" if method == "repaired" else method
        key = (goal, method, concept, str(fraction) if method == "iterated" else "")
        if key not in self._known:
            self._known[key] = self._scores(goal, method, concept, fraction)
        return self._known[key]

    def _scores(self, goal: str, method: str, concept: str, fraction: float) -> Scores:
        c = self.config
        if method == "contrast":
            return self._contrast(goal, concept)
        if method == "iterated":
            options = Options(seed=c.seed, fraction=fraction, rounds=c.rounds)
            return estimate("iterated", self.problems.problem(goal, concept, "context"), options)
        if method == "steps":
            return estimate("gradient", self.problems.problem(goal, concept, "context"))
        kind = method if method in ("live", "published") else "wide" if method in CONTROLS else "cad"
        name = "cad" if method in ("live", "published") else method.removeprefix("cad_")
        return estimate(name, self.problems.problem(goal, concept, kind), Options(seed=c.seed))

    def _rate(self, chosen: Chosen) -> float:
        fraction = count(chosen) / sum(w.numel() for w in self.wide.values())
        return self.config.tune_rate * fraction ** (-1 / 3) if fraction else self.config.tune_rate

    def _contrast(self, goal: str, concept: str) -> Scores:
        own = _fractions(self.scores(goal, "cad", concept))
        sign = 1.0 if goal == "erase" else -1.0
        highest: Scores | None = None
        for other in self.concepts:
            if other != concept:
                theirs = {name: sign * s for name, s in _fractions(self.scores(goal, "cad", other)).items()}
                highest = theirs if highest is None else {n: torch.maximum(highest[n], s) for n, s in theirs.items()}
        if highest is None:
            return own
        return {name: s - sign * highest[name].clamp_min(0) for name, s in own.items()}


def _fractions(scores: Mapping[str, Tensor]) -> Scores:
    total = sum(float(s.abs().sum()) for s in scores.values()) or 1.0
    return {name: s / total for name, s in scores.items()}
