"""Zero what carries a concept, then repair elsewhere what that did to other prompts: clean, and little to call back.

Gradient steps and closed forms in cross-attention cut the way from the text to a concept that the model can still draw.
Zeroed feed-forward weights take it away, with other things. Training the feed-forward weights that are left on other
prompts brings those back, and the concept with them; training cross-attention alone does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gazetteer.attribution.edits.delta import Delta, ablation, applied, compose
from gazetteer.attribution.edits.tune import gradient_steps
from gazetteer.attribution.objective.problem import Problem
from gazetteer.attribution.scores.selection import Chosen


def zero_and_repair(
    weights: Mapping[str, nn.Parameter], chosen: Chosen, held: Problem, *,
    steps: int, rate: float, provenance: dict[str, Any] | None = None,
) -> Delta:  # fmt: skip
    """The edit that zeroes the chosen weights and trains others on `held`.

    Args:
        weights: that hold the chosen ones.
        chosen: to zero; they stay zero.
        held: what repairing lowers, on the weights that it may move.
        steps, rate: see `gradient_steps`.
    """
    zeroed = ablation(weights, chosen, {})
    moved: Chosen = {}
    for name, weight in held.weights.items():
        free = torch.ones(weight.numel(), dtype=torch.bool)
        free[chosen.get(name, torch.empty(0, dtype=torch.int64))] = False
        moved[name] = free.nonzero().squeeze(1)
    with applied(held.model, zeroed):
        repaired = gradient_steps(held, moved, steps=steps, rate=rate)
    return Delta(compose([zeroed, repaired]).changes, provenance or {})
