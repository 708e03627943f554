"""Estimators: every weight's contribution α to J, such that zeroing the weight changes J by about −α.

All have one interface, `ESTIMATORS[name](problem, options) -> Scores`. `cost` says what each spends. Controls
(random, magnitude, gradient, wanda) rank weights; their numbers are not in units of J.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.problem import Problem, Scores
from gazetteer.attribution.scores.groups import Groups
from gazetteer.attribution.scores.iterated import iterated_scores
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.watch import heard_whole


@dataclass(frozen=True)
class Options:
    """What estimators can be told.

    Attributes:
        seed: of everything random.
        points: gradients taken along a path (`integrated`) or at random ablations (`expected`), or projections.
        fraction: of the weights (or groups) zeroed at a time where random ablations are drawn, or by `iterated`.
        ablations: random ablations that `coar` regresses on.
        rounds: gradients of `iterated`.
        ridge: L2 penalty of that regression, as a fraction of its mean squared column.
        groups: the components of `coar` and `finite`.
    """

    seed: int = 0
    points: int = 8
    fraction: float = 0.05
    ablations: int = 500
    rounds: int = 40
    ridge: float = 0.01
    groups: Groups | None = None


def taylor(problem: Problem, options: Options) -> Scores:
    """α_i = w_i · dJ/dw_i, as published (P2 section 3.2; first-order Taylor of zeroing w_i). One gradient."""
    return _times_weights(problem, problem.gradient())


def integrated(problem: Problem, options: Options) -> Scores:
    """α_i = w_i · ∫₀¹ dJ/dw_i (β w) dβ by the midpoint rule: integrated gradients on the path to zero.

    The α of all weights sum to J(w) − J(0). `points` gradients.
    """
    total = _zeros(problem)
    for point in range(options.points):
        with problem.scaled(dict.fromkeys(problem.weights, (point + 0.5) / options.points)):
            _add(total, problem.gradient(), 1 / options.points)
    return _times_weights(problem, total)


def expected(problem: Problem, options: Options) -> Scores:
    """α_i = w_i · E[dJ/dw_i], the mean over models in which a random fraction of the weights is zero.

    The derivative of J's multilinear extension, by gradients: the best linear prediction of ablations of that size
    where J is smooth between 0 and w_i. `points` gradients; the intact model is not among them.
    """
    total, generator = _zeros(problem), _generator(options)
    for _ in range(options.points):
        with problem.scaled(_random_mask(problem, options.fraction, generator)):
            _add(total, problem.gradient(), 1 / options.points)
    return _times_weights(problem, total)


def curved(problem: Problem, options: Options) -> Scores:
    """α_i = w_i · dJ/dw_i − w_i² · h_i: the second-order Taylor of zeroing w_i, with `Problem.curvature`'s diagonal.

    Exact for one weight where J is quadratic in it. Sees what a gradient cannot: damage around a minimum, where every
    first-order α is 0. 1 gradient and `points` projections of the same cost. Raises InputError where J is not a
    squared distance.
    """
    first, second = taylor(problem, options), _zeros(problem)
    for point in range(options.points):
        _add(second, problem.curvature(options.seed + point), 1 / options.points)
    return {n: a - problem.weights[n].detach().float() ** 2 * second[n] for n, a in first.items()}


def iterated(problem: Problem, options: Options) -> Scores:
    """α_i = Σ w_i · dJ/dw_i over models in which the leaders so far are zero (`iterated.iterated_scores`).

    For choosing `fraction` of all weights to zero together; not in units of J. `rounds` gradients of one part each.
    """
    return iterated_scores(problem, options.fraction, options.rounds, points=options.points, seed=options.seed)


def coar(problem: Problem, options: Options) -> Scores:
    """COAR-style: zero random groups, regress J on the 0/1 masks (Shah et al. 2404.11534; ridge instead of lasso).

    A group's α is spread evenly over its weights. `ablations` evaluations of J, no gradient.
    """
    groups, generator = _groups(options), _generator(options)
    masks = (torch.rand(options.ablations, len(groups), generator=generator) >= options.fraction).double()
    actual = []
    for row in masks:
        with problem.scaled(groups.factors(row)):
            actual.append(problem.value())
    centred = masks - masks.mean(0)
    y = torch.tensor(actual, dtype=torch.float64)
    gram = centred.T @ centred
    gram += torch.eye(len(groups), dtype=torch.float64) * (options.ridge * gram.diagonal().mean().clamp_min(1e-12))
    return groups.spread(torch.linalg.solve(gram, centred.T @ (y - y.mean())))


def finite(problem: Problem, options: Options) -> Scores:
    """α of a group = J(w) − J(group zeroed), exact for one group at a time, spread evenly over its weights.

    One evaluation of J per group, and one more.
    """
    groups = _groups(options)
    whole, alphas = problem.value(), torch.zeros(len(groups), dtype=torch.float64)
    for group in range(len(groups)):
        with problem.scaled(groups.only(group)):
            alphas[group] = whole - problem.value()
    return groups.spread(alphas)


def random(problem: Problem, options: Options) -> Scores:
    """Control: uniform numbers."""
    generator = _generator(options)
    return {name: torch.rand(w.shape, generator=generator) for name, w in problem.weights.items()}


def magnitude(problem: Problem, options: Options) -> Scores:
    """Control: |w|."""
    return {name: w.detach().float().abs().cpu() for name, w in problem.weights.items()}


def gradient(problem: Problem, options: Options) -> Scores:
    """Control: |dJ/dw|. One gradient."""
    return {name: g.abs().cpu() for name, g in problem.gradient().items()}


def wanda(problem: Problem, options: Options) -> Scores:
    """Control: |w| · ‖x‖ where the input's norm is larger on the concept than on the base, else 0.

    After ConceptPrune (2405.19237), which compares Wanda scores (Sun et al.) of target and base; here over all steps
    sampled, without its majority vote. Two passes without gradient. Raises InputError where the problem has no inputs.
    """
    if len(problem.inputs) < 2:
        raise InputError("wanda needs a problem that can be run on a concept and on a base.")
    norms = []
    for run in problem.inputs[:2]:
        with _input_norms(problem) as input_norms:
            run()
        norms.append(input_norms)
    scores = {}
    for name, weight in problem.weights.items():
        on, off = norms[0].get(name), norms[1].get(name)
        if on is None or off is None:
            scores[name] = torch.zeros(weight.shape)
            continue
        shape = (1, -1, *[1] * (weight.ndim - 2))
        scores[name] = (weight.detach().float().abs() * (on.sqrt() * (on > off)).view(shape)).cpu()
    return scores


Estimator = Callable[[Problem, Options], Scores]
ESTIMATORS: dict[str, Estimator] = {
    "cad": taylor,
    "integrated": integrated,
    "expected": expected,
    "curved": curved,
    "iterated": iterated,
    "coar": coar,
    "finite": finite,
    "random": random,
    "magnitude": magnitude,
    "gradient": gradient,
    "wanda": wanda,
}
GROUPED = ("coar", "finite")
SQUARED = ("curved", "iterated")
"""They need an objective that is a squared distance."""


def require_known(name: str) -> None:
    """Raise InputError for an estimator that there is not."""
    if name not in ESTIMATORS:
        raise InputError(f"Unknown estimator {name!r}; accepted: {', '.join(ESTIMATORS)}.")


def estimate(name: str, problem: Problem, options: Options = Options()) -> Scores:
    """The scores of a named estimator, float32 on the CPU.

    Raises:
        InputError: an unknown name, or scores that are not finite numbers.
    """
    require_known(name)
    scores = {key: value.float().cpu() for key, value in ESTIMATORS[name](problem, options).items()}
    if wrong := sum(int((~score.isfinite()).sum()) for score in scores.values()):
        dtypes = sorted({str(weight.dtype).removeprefix("torch.") for weight in problem.weights.values()})
        raise InputError(
            f"{wrong} of {sum(score.numel() for score in scores.values())} scores by {name} are not finite numbers, as "
            f"gradients in {' and '.join(dtypes)} come out that overflow; take model.dtype=float32 or bfloat16."
        )
    return scores


def cost(name: str, options: Options, groups: int = 0) -> dict[str, int]:
    """What an estimator spends: evaluations of J and gradients of J."""
    gradients = {
        "cad": 1,
        "gradient": 1,
        "integrated": options.points,
        "expected": options.points,
        "curved": 1 + options.points,
        "iterated": options.rounds + options.points,
    }
    values = {"coar": options.ablations, "finite": groups + 1, "wanda": 2}
    return {"values": values.get(name, 0), "gradients": gradients.get(name, 0)}


def _times_weights(problem: Problem, gradients: Mapping[str, Tensor]) -> Scores:
    return {name: (problem.weights[name].detach().float() * g) for name, g in gradients.items()}


def _zeros(problem: Problem) -> Scores:
    return {name: torch.zeros_like(w, dtype=torch.float32) for name, w in problem.weights.items()}


def _add(total: Scores, more: Mapping[str, Tensor], factor: float) -> None:
    for name, value in more.items():
        total[name] += factor * value


def _generator(options: Options) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(options.seed)


def _random_mask(problem: Problem, fraction: float, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: (torch.rand(w.shape, generator=generator) >= fraction).to(w.device, w.dtype)
        for name, w in problem.weights.items()
    }


def _groups(options: Options) -> Groups:
    if options.groups is None:
        raise InputError("This estimator scores groups of weights: name them in options.groups.")
    return options.groups


@contextmanager
def _input_norms(problem: Problem) -> Iterator[dict[str, Tensor]]:
    """While open, sum the squares of every input channel of the layers that own the weights, float32 [channels].

    Raises InputError when it closes and no layer was heard: something else ran in the model's place.
    """
    sums: dict[str, Tensor] = {}

    def hook_for(name: str, channel: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].detach().float()
            square = (x**2).sum([d for d in range(x.ndim) if d != channel % x.ndim])
            sums[name] = sums.get(name, torch.zeros_like(square)) + square

        return hook

    owners = {name: name.rpartition(".")[0] for name in problem.weights}
    listening = False
    with ExitStack() as stack:
        stack.enter_context(heard_whole(problem.model, owners.values()))
        for name, path in owners.items():
            module = problem.model.get_submodule(path)
            channel = 1 if isinstance(module, nn.Conv2d) else -1
            if isinstance(module, nn.Conv2d | nn.Linear):
                stack.callback(module.register_forward_pre_hook(hook_for(name, channel)).remove)
                listening = True
        yield sums
    if listening and not sums:
        raise InputError("The model ran, but none of the layers that are scored was heard; load it uncompiled.")
