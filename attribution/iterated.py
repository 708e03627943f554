"""Iterated attribution: scores summed over models in which the weights that lead so far are already zero.

One gradient at the intact weights cannot see two things: that a weight no longer matters once others are gone, and what
zeroing costs elsewhere (the damage is quadratic around the intact model, its gradient there is nothing). Both show in
the gradients of the ablated model. So: zero the leaders, differentiate again, add, and let the ranking change.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attribution.problem import Problem, Scores
from attribution.selection import Share, select


def iterated_scores(problem: Problem, share: float, rounds: int, *, warm: float = 0.5) -> Scores:
    """α_i = Σ_r w_i · dJ_r/dw_i, taken where the `share` of all weights with the highest sums so far is zero.

    The sums are what a straight-through gradient adds to the scores of a hard mask (edge-popup, Ramanujan et al.
    1911.13299, with a rate that does not matter as only the order counts); round 1 alone is CAD's w · dJ/dw. A weight
    whose absence hurts gets a negative term while it is zero, and comes back. Round r uses the r-th part of the
    problem, so a round costs one gradient on one batch.

    Args:
        problem: J is what zeroing should lower, damage included.
        share: of all weights together that the edit will zero, reached linearly.
        rounds: gradients.
        warm: share of the rounds in which `share` is reached.

    Returns:
        scores on the weights' device, float32.
    """
    total: Scores = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in problem.weights.items()}
    intact = {name: w.detach().float().clone() for name, w in problem.weights.items()}
    for nth in range(rounds):
        now = share * min(1.0, nth / max(1.0, warm * rounds))
        masks = _masks(problem.weights, select(total, Share(now, "global")))
        with problem.scaled(masks):
            gradient = problem.part(nth).gradient()
        for name, sum_ in total.items():
            sum_ += intact[name] * gradient[name]
    return total


def _masks(weights: Mapping[str, Tensor], chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    masks = {}
    for name, index in chosen.items():
        mask = torch.ones(weights[name].numel())
        mask[index] = 0.0
        masks[name] = mask.view(weights[name].shape).to(weights[name].device)
    return masks
