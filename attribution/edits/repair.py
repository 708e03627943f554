"""Zeroing with the damage in view, then repairing the rest: clean on ordinary prompts, and nothing to call back.

Gradient steps and closed forms cut the way from the text to a concept that the model can still draw. Feed-forward
weights that are zeroed take it away, with other things. So weights are zeroed that carry much of the concept for what
they do to other predictions, and the weights that stay are trained until other prompts come out as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gazetteer.attribution.edits.delta import Delta, ablation, applied, compose
from gazetteer.attribution.edits.tune import gradient_steps
from gazetteer.attribution.objective.problem import Problem, Scores
from gazetteer.attribution.scores.selection import Chosen


def per_damage(scores: Scores, held: Problem, *, points: int = 4, seed: int = 0) -> Scores:
    """α_i / (d_i + mean d): how much of the concept a weight carries for what zeroing it does to other predictions.

    d_i = w_i² h_i is the second-order change of the held predictions (`Problem.curvature`; their gradient at the intact
    weights is nothing), and its mean over all weights keeps what does next to nothing from leading.

    Args:
        scores: α of the concept, float32 on the CPU.
        held: the squared distance of the predictions to be kept from what they are, on the same weights.
        points: random projections, each on one part of `held`.
    """
    damage = {name: torch.zeros(score.shape) for name, score in scores.items()}
    for point in range(points):
        for name, h in held.part(point).curvature(seed + point).items():
            damage[name] += (held.weights[name].detach().float() ** 2 * h / points).cpu()
    mean = sum(float(d.sum()) for d in damage.values()) / max(1, sum(d.numel() for d in damage.values()))
    return {name: score / (damage[name] + max(mean, 1e-30)) for name, score in scores.items()}


def zero_and_repair(
    weights: Mapping[str, nn.Parameter], chosen: Chosen, held: Problem, *,
    steps: int, rate: float, provenance: dict[str, Any] | None = None,
) -> Delta:  # fmt: skip
    """The edit that zeroes the chosen weights and trains all others of the same matrices on `held`.

    Args:
        weights: that were scored.
        chosen: to zero; they stay zero.
        held: what the others are trained to lower, on these weights.
        steps, rate: see `gradient_steps`.
    """
    zeroed = ablation(weights, chosen, {})
    rest: Chosen = {}
    for name, weight in weights.items():
        stays = torch.ones(weight.numel(), dtype=torch.bool)
        stays[chosen.get(name, torch.empty(0, dtype=torch.int64))] = False
        rest[name] = stays.nonzero().squeeze(1)
    with applied(held.model, zeroed):
        repaired = gradient_steps(held, rest, steps=steps, rate=rate)
    both = compose([zeroed, repaired])
    return Delta(both.changes, provenance or {})
