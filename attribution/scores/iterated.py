"""Iterated attribution: zero the leaders, ask again what every weight does in the ablated model, let ranks change.

One gradient at the intact weights cannot see three things: that a full step to zero may overshoot, that a weight no
longer matters once others are gone, and what zeroing costs elsewhere (the damage is quadratic around the intact model,
its gradient there is nothing). Curvature shows the first, gradients of the ablated model the other two.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gazetteer.attribution.objective.problem import Problem, Scores
from gazetteer.attribution.scores.selection import Selection, select


def iterated_scores(
    problem: Problem,
    fraction: float,
    rounds: int,
    *,
    points: int = 4,
    seed: int = 0,
    warm: float = 0.7,
    memory: float = 0.8,
) -> Scores:
    """What zeroing each weight gains where the leaders so far are zero, as a running mean over rounds.

    For a weight that is there the gain is w · dJ/dw − w² h; for one that is zero, what putting it back would cost,
    w · dJ/dw + w² h; both are −ΔJ between w and 0 to second order, h of `Problem.curvature` at the intact weights.
    Every round takes the weights with the highest positive gain, a few more than the round before; those whose gain
    has gone come back. Round r uses the r-th part of the problem, so it costs one gradient on one batch.

    Args:
        problem: J is what zeroing should lower, damage included: a squared distance.
        fraction: of all weights together that the edit will zero at most, reached linearly.
        rounds: gradients.
        points: projections for h, each on one part.
        warm: fraction of the rounds in which `fraction` is reached.
        memory: how much of the running mean each round keeps.

    Returns:
        scores on the weights' device, float32.

    Raises:
        InputError: J is not a squared distance.
    """
    intact = {name: w.detach().float().clone() for name, w in problem.weights.items()}
    cost: Scores = {name: torch.zeros_like(w) for name, w in intact.items()}
    for point in range(points):
        for name, h in problem.part(point).curvature(seed + point).items():
            cost[name] += intact[name] ** 2 * h / points
    gain: Scores = {name: torch.zeros_like(w) for name, w in intact.items()}
    for nth in range(rounds):
        now = fraction * min(1.0, nth / max(1.0, warm * rounds))
        masks = _masks(problem.weights, select(gain, Selection(now, "global")))
        with problem.scaled(masks):
            gradient = problem.part(nth).gradient()
        for name, mean in gain.items():
            mask = masks.get(name, torch.ones(()).to(mean))
            new = intact[name] * gradient[name] + (1 - 2 * mask) * cost[name]
            mean.mul_(memory).add_(new, alpha=1 - memory) if nth else mean.copy_(new)
    return gain


def _masks(weights: Mapping[str, Tensor], chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    masks = {}
    for name, index in chosen.items():
        mask = torch.ones(weights[name].numel())
        mask[index] = 0.0
        masks[name] = mask.view(weights[name].shape).to(weights[name].device)
    return masks
