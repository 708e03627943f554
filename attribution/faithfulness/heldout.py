"""Whether scores foretell ablations on noise they have not seen: objects and styles, early to late; trivial guesses.

Scores of one trajectory may foretell J on that very trajectory and say little of the next one, which is what an edit
meets. So every estimator is asked about the same ablations twice: on the first trajectory that it was made from, and on
trajectories of other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.objective.objectives import Erase
from gazetteer.attribution.objective.problem import Problem, Scores, diffusion_problem
from gazetteer.attribution.objective.samples import Samples
from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.attribution.scores.estimators import Options, estimate
from gazetteer.labeling.quality.intervals import Interval, nested_bootstrap

STAGES = ("early", "middle", "late", "all")
"""Thirds of the sampler's steps, and all of them: what J is the mean over."""
TRIVIAL = ("count", "sum_abs", "sum_squares", "by_layer")
"""Predictors that know nothing of the weight's work: how many weights go, Σ|w|, Σw², and the mean α of their layer."""


@dataclass(frozen=True)
class HeldoutConfig:
    """How much is studied.

    Attributes:
        objects, styles: how many concepts of each.
        ablations: random ablations of single weights, the same for every estimator and noise.
        fraction: of the weights that are ablated at a time.
        inputs: trajectories of held-out noise.
        trajectories: numbers of trajectories that scores are averaged over, ascending, from 1.
        points: gradients of ``integrated`` and of ``expected`` on one trajectory.
    """

    objects: int = 5
    styles: int = 2
    ablations: int = 100
    fraction: float = 0.05
    inputs: int = 3
    trajectories: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    points: int = 16


def heldout_study(methods: Methods, concept: str, config: HeldoutConfig, seed: int) -> list[dict[str, Any]]:
    """Predicted against actual change of J, with the gradient that J has, over random ablations.

    J of a stage is its mean over the steps of the stage, and what foretells it are scores of that J.

    Returns:
        one row per estimator, noise (``same`` or ``heldout``), stage and input: ``pearson``, with the ``trajectories``
        and ``gradients`` of U-Net inputs that the estimator spent.
    """
    several = [_walk(methods, concept, seed + i) for i in range(max(config.trajectories))]
    held = [_walk(methods, concept, seed + 10_000 + i) for i in range(config.inputs)]
    spans = _spans(len(several[0]))
    guesses, spent = _guesses(methods, several, spans, config, seed)
    asked = {"same": several[:1], "heldout": held}
    live = {noise: [_problem(methods, samples) for samples in several] for noise, several in asked.items()}
    intact = {noise: np.stack([problem.values().numpy() for problem in problems]) for noise, problems in live.items()}
    changes: dict[str, list[NDArray[np.float64]]] = {noise: [] for noise in live}
    for dropped in _ablations(methods, config, seed):
        with live["same"][0].scaled(_factors(methods.weights, 1 - dropped)):
            for noise, problems in live.items():
                changes[noise].append(np.stack([problem.values().numpy() for problem in problems]) - intact[noise])
    rows = []
    for place, (name, (many, gradients)) in enumerate(spent.items()):
        for noise, changed in changes.items():
            for number, by_step in enumerate(np.stack(changed).transpose(1, 0, 2)):  # [ablations, steps] of one input
                for stage, value in _by_stage({s: g[:, place] for s, g in guesses.items()}, by_step).items():
                    rows.append({
                        "concept": concept, "estimator": name, "noise": noise, "stage": stage, "input": number,
                        "pearson": value, "trajectories": many, "gradients": gradients,
                    })  # fmt: skip
    return rows


def heldout_summary(
    rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str], resamples: int, seed: int
) -> dict[str, Any]:
    """Per estimator, noise and stage the mean correlation over concepts and inputs, [mean, low, high].

    The interval resamples concepts, and inputs within them; beside ``same`` and ``heldout`` stand ``objects`` and
    ``styles``: those concepts alone, on held-out noise.

    Args:
        rows: of `heldout_study`, of several concepts.
        kinds: per concept ``objects`` or ``styles``.
    """
    result: dict[str, Any] = {}
    for name in dict.fromkeys(row["estimator"] for row in rows):
        own_rows = [row for row in rows if row["estimator"] == name]
        own = [row for row in own_rows if row["noise"] == "heldout"]
        parts = {"same": [row for row in own_rows if row["noise"] == "same"], "heldout": own}
        parts |= {kind: [row for row in own if kinds[row["concept"]] == kind] for kind in dict.fromkeys(kinds.values())}
        result[name] = {
            part: {stage: _mean(rows_of_part, stage, resamples, seed) for stage in STAGES}
            for part, rows_of_part in parts.items()
        } | {"trajectories": own_rows[0]["trajectories"], "gradients": own_rows[0]["gradients"]}
    return result


def _mean(rows: Sequence[Mapping[str, Any]], stage: str, resamples: int, seed: int) -> Interval:
    by_concept: dict[str, list[float]] = {}
    for row in rows:
        if row["stage"] == stage:
            by_concept.setdefault(row["concept"], []).append(row["pearson"])
    values = [np.array(values_of) for values_of in by_concept.values()]

    def mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = weights @ values / weights.sum(axis=1)
        return means

    statistics = [partial(mean, sample) for sample in values]
    return nested_bootstrap(statistics, [len(sample) for sample in values], resamples=resamples, seed=seed)


def _spans(steps: int) -> dict[str, tuple[int, int]]:
    """The first step of every third, and the one after its last; of fewer than three steps a third may hold none."""
    edges = [round(steps * third / 3) for third in range(4)]
    return {stage: span for stage, span in zip(STAGES, pairwise(edges), strict=False) if span[1] > span[0]}


def _by_stage(guesses: Mapping[str, NDArray[np.float64]], change: NDArray[np.float64]) -> dict[str, float]:
    """Per stage the correlation of what was guessed of it, [ablations], and the change of J, [ablations, steps]."""
    spans = {**_spans(change.shape[1]), STAGES[-1]: (0, change.shape[1])}
    return {stage: _pearson(guesses[stage], change[:, a:b].mean(axis=1)) for stage, (a, b) in spans.items()}


def _guesses(
    methods: Methods, several: Sequence[Samples], spans: Mapping[str, tuple[int, int]], config: HeldoutConfig, seed: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, tuple[int, int]]]:
    """Per stage what each estimator foretells, [ablations, estimators]; the trajectories and gradients each has spent.

    Scores are of a stage's own J. That of all steps is the mean over them, and so are its scores: by the stages' steps.
    """
    result: dict[str, NDArray[np.float64]] = {}
    spent: dict[str, tuple[int, int]] = {}
    for stage, (first, last) in spans.items():
        scores = _scores(methods, [samples.at(slice(first, last)) for samples in several], config, seed)
        table = torch.stack([torch.cat([s[n].reshape(-1) for n in methods.weights]) for s, _, _ in scores.values()])
        dropped = _ablations(methods, config, seed)
        result[stage] = np.stack([-(table @ d.to(table.dtype)).double().numpy() for d in dropped])
        spent = {name: (many, spent.get(name, (0, 0))[1] + used) for name, (_, many, used) in scores.items()}
    steps = len(several[0])
    result[STAGES[-1]] = np.sum(
        [guess * (b - a) / steps for guess, (a, b) in zip(result.values(), spans.values(), strict=True)], axis=0
    )
    return result, spent


def _ablations(methods: Methods, config: HeldoutConfig, seed: int) -> Iterator[Tensor]:
    """The same ones each time: which of all weights are dropped, [weights] of 0 and 1."""
    generator = torch.Generator("cpu").manual_seed(seed + 77)
    weights = sum(w.numel() for w in methods.weights.values())
    for _ in range(config.ablations):
        yield (torch.rand(weights, generator=generator) < config.fraction).float()


def _pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """A constant side correlates with nothing: 0."""
    if min(np.ptp(first), np.ptp(second)) <= 1e-12:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _walk(methods: Methods, concept: str, seed: int) -> Samples:
    c = methods.config
    prompt = c.template.format(concept)
    return trajectory(methods.pipe, [prompt], [seed], steps=c.steps, guidance=c.guidance, base=c.base)


def _problem(methods: Methods, samples: Samples, stop: bool = False) -> Problem:
    batch = max(methods.config.batch, len(samples))
    return diffusion_problem(methods.denoiser, Erase(stop), samples, methods.weights, batch)


def _scores(
    methods: Methods, several: Sequence[Samples], config: HeldoutConfig, seed: int
) -> dict[str, tuple[Scores, int, int]]:
    """Per estimator its α, and over how many trajectories and how many gradients of a U-Net input they are taken."""
    first, steps, weights = several[0], len(several[0]), methods.weights
    live = _problem(methods, first)
    options = Options(seed=seed + 1, points=config.points, fraction=config.fraction)
    result: dict[str, tuple[Scores, int, int]] = {"cad": (estimate("cad", _problem(methods, first, True)), 1, steps)}
    for name in ("integrated", "expected"):
        result[f"{name}_live"] = (estimate(name, live, options), 1, steps * config.points)
    sums = {"cad_live": _zeros(weights), "expected_live": _zeros(weights)}
    generator = torch.Generator("cpu").manual_seed(seed + 2)
    for number, samples in enumerate(several, start=1):
        problem = _problem(methods, samples)
        _add(sums["cad_live"], estimate("cad", problem))
        mask = torch.rand(sum(w.numel() for w in weights.values()), generator=generator) >= config.fraction
        with problem.scaled(_factors(weights, mask.float())):
            slopes = problem.gradient()
        _add(sums["expected_live"], {n: (weights[n].detach().float() * g).cpu() for n, g in slopes.items()})
        if number in config.trajectories:
            for name, total in sums.items():
                mean = {n: added / number for n, added in total.items()}
                if number == 1 and name == "expected_live":
                    continue  # one gradient of one ablated model; with all its points it stands above
                result[name if number == 1 else f"{name}_x{number}"] = (mean, number, steps * number)
    alphas = result["cad_live"][0]
    trivial = {
        "count": {n: torch.ones(w.shape) for n, w in weights.items()},
        "sum_abs": {n: w.detach().float().abs().cpu() for n, w in weights.items()},
        "sum_squares": {n: w.detach().float().square().cpu() for n, w in weights.items()},
        "by_layer": {n: alphas[n].mean().expand(w.shape) for n, w in weights.items()},
    }
    return result | {name: (scores, 0, 0 if name != "by_layer" else steps) for name, scores in trivial.items()}


def _zeros(weights: Mapping[str, Tensor]) -> Scores:
    return {name: torch.zeros(w.shape) for name, w in weights.items()}


def _add(total: Scores, more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        total[name] += value


def _factors(weights: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    parts = mask.split([w.numel() for w in weights.values()])
    return {name: part.view(w.shape) for (name, w), part in zip(weights.items(), parts, strict=True)}
