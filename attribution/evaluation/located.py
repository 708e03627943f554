"""Where the weights lie that carry a concept: chosen by a method of the evaluation, or from all of the U-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gazetteer.attribution.edits.method_names import leader, takes_all
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.evaluation.cache import ResultCache
from gazetteer.attribution.objective.objectives import Erase
from gazetteer.attribution.objective.problem import Problem, diffusion_problem
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.estimators import estimate
from gazetteer.attribution.scores.overlap import by_step, distribution, overlaps
from gazetteer.attribution.scores.selection import Chosen, Selection, scope_weights, select

EVERYWHERE = 0.01
"""The fraction of all weights of the U-Net that `everywhere` takes."""
_STEPS = "by_step"
"""Among the arrays of the cache, which are otherwise named after parameters."""


def located(
    methods: Methods,
    names: Sequence[str],
    fractions: Mapping[str, float],
    concepts: Sequence[str],
    cache: ResultCache | None = None,
) -> dict[str, Any]:
    """``overlap`` (Jaccard) and ``distribution`` over layers of the weights that methods chose to erase concepts.

    Args:
        fractions: per method the operating point.
    """
    result: dict[str, Any] = {"overlap": {}, "distribution": {}}
    for name in [name for name in names if name in fractions]:
        chosen = {c: _chosen(methods, cache or ResultCache(), name, c, fractions[name]) for c in concepts}
        ranking = leader(name, methods.config.reference) or name
        wide = ranking in ("iterated", "steps") or takes_all(ranking)
        scope = methods.wide if wide else methods.weights
        result["overlap"][name] = overlaps(chosen)
        result["distribution"][name] = {c: distribution(methods.denoiser, taken, scope) for c, taken in chosen.items()}
    return result


def _chosen(methods: Methods, cache: ResultCache, method: str, concept: str, fraction: float) -> Chosen:
    def make() -> dict[str, np.ndarray[Any, Any]]:
        return {name: index.numpy() for name, index in methods.choose("erase", method, concept, fraction).items()}

    stored = cache.arrays(("chosen", method, concept, fraction), make)
    return {name: torch.tensor(index) for name, index in stored.items()}


def everywhere(methods: Methods, concepts: Sequence[str], cache: ResultCache | None = None) -> dict[str, Any]:
    """The top weights of each concept by ``cad`` where all kinds of layers compete: scope ``all``, one ranking.

    The methods of an evaluation look at one kind of layer each, and ``cad`` takes as much of every layer, so that
    `located` cannot say which kinds and layers matter.

    Returns:
        ``fraction``, EVERYWHERE; ``weights``: of all scored weights, the fraction by ``kind`` and ``block``, which is
        what a choice at random gives; per concept ``kind``, ``block`` (the same of the chosen weights), ``step``
        (`by_step`) and ``distribution`` (by layer); ``overlap`` (Jaccard index of each pair).
    """
    c, cache = methods.config, cache or ResultCache()
    weights = scope_weights(methods.denoiser, "all")
    result: dict[str, Any] = {
        "fraction": EVERYWHERE,
        "weights": {},
        "kind": {},
        "block": {},
        "step": {},
        "distribution": {},
    }
    choices: dict[str, Chosen] = {}
    for concept in dict.fromkeys(concepts):
        key = ("everywhere", concept, EVERYWHERE)

        def make(concept: str = concept) -> dict[str, np.ndarray[Any, Any]]:
            problem = whole_problem(methods, concept)
            chosen = select(estimate("cad", problem), Selection(EVERYWHERE, "global"))
            return {_STEPS: np.array(by_step(problem, chosen, c.steps)), **{n: i.numpy() for n, i in chosen.items()}}

        stored = dict(cache.arrays(key, make))
        result["step"][concept] = stored.pop(_STEPS).tolist()
        choices[concept] = {name: torch.tensor(index) for name, index in stored.items()}
        rows = result["distribution"][concept] = distribution(methods.denoiser, choices[concept], weights)
        for place in ("kind", "block"):
            result[place][concept] = _fractions(rows, place, "chosen")
            result["weights"][place] = _fractions(rows, place, "weights")
    return {**result, "overlap": overlaps(choices)}


def whole_problem(methods: Methods, concept: str) -> Problem:
    """The published J of a concept on all weights of the U-Net, one part per sampler step."""
    c = methods.config
    samples = trajectory(
        methods.pipe, [c.template.format(concept)] * c.seeds, [c.seed + i for i in range(c.seeds)],
        steps=c.steps, guidance=c.guidance, base=c.base,
    )  # fmt: skip
    return diffusion_problem(methods.denoiser, Erase(), samples, scope_weights(methods.denoiser, "all"), c.seeds)


def _fractions(rows: Sequence[Mapping[str, Any]], place: str, what: str) -> dict[str, float]:
    total = sum(row[what] for row in rows) or 1
    names = dict.fromkeys(row[place] for row in rows)
    return {name: sum(row[what] for row in rows if row[place] == name) / total for name in names}
