"""Where the chosen weights lie, how far the choices for several concepts are the same, and which concepts are close."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.problem import Problem
from gazetteer.attribution.objective.trajectory import conditioning
from gazetteer.attribution.scores.selection import Chosen, jaccard, part_of

KINDS = ("ff", "cross", "self", "conv", "other")


def overlaps(choices: Mapping[str, Chosen]) -> dict[str, dict[str, float]]:
    """Jaccard index of the weights chosen for every pair of concepts."""
    return {
        first: {second: jaccard(choices[first], choices[second]) for second in choices if second != first}
        for first in choices
    }


def distribution(unet: nn.Module, chosen: Chosen, weights: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Per parameter of the scope, in the model's order: how many of its weights are chosen.

    Args:
        weights: of the scope, as of `scope_weights` of the same network.

    Returns:
        rows of ``module``, ``block`` (as ``down_blocks.0``), ``kind`` (one of KINDS), ``weights``, ``chosen``,
        ``fraction`` of the parameter's weights and ``of_all``, the fraction of all chosen weights.
    """
    total = sum(len(index) for index in chosen.values()) or 1
    rows = []
    for name, weight in weights.items():
        count = len(chosen.get(name, ()))
        rows.append(
            {
                "module": name.removesuffix(".weight"), "block": block_of(name), "kind": kind_of(unet, name, weight),
                "weights": weight.numel(), "chosen": count, "fraction": count / weight.numel(), "of_all": count / total,
            }
        )  # fmt: skip
    return rows


def by_step(problem: Problem, chosen: Chosen, steps: int) -> list[float]:
    """Per sampler step, first to last, its fraction of Σ_t Σ |w · dJ_t/dw| over the chosen weights; sums to 1.

    Args:
        problem: with one part per step, in their order.
    """
    weights = {name: problem.weights[name].detach().float().cpu().reshape(-1)[index] for name, index in chosen.items()}
    sums = []
    for step in range(steps):
        gradient = problem.part(step).gradient()
        sums.append(sum(float((w * gradient[n].cpu().reshape(-1)[chosen[n]]).abs().sum()) for n, w in weights.items()))
    total = sum(sums) or 1.0
    return [value / total for value in sums]


def block_of(name: str) -> str:
    """The block of a parameter: ``down_blocks.0``, ``mid_block``, ``transformer_blocks.1``, ``conv_in``."""
    match = re.match(r"(?:down|up|transformer|single_transformer)_blocks\.\d+|[^.]+", name)
    return match.group() if match else name


def kind_of(unet: nn.Module, name: str, weight: Tensor) -> str:
    """What a parameter is for, one of KINDS."""
    return part_of(unet, name) or ("conv" if weight.ndim == 4 else "other")


@torch.no_grad()
def neighbours(pipe: Any, concepts: Sequence[str], most: int = 3) -> dict[str, tuple[str, ...]]:
    """Per concept the `most` others whose bare names the model's text encoder tells least apart.

    By the cosine of what the U-Net is conditioned on, all tokens in a row, less its mean over the concepts.
    """
    if len(concepts) < 2:
        return dict.fromkeys(concepts, ())
    vectors = conditioning(pipe, list(concepts))["encoder_hidden_states"].float().flatten(1)
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    close = vectors @ vectors.T
    close.fill_diagonal_(-2.0)
    best = close.sort(dim=1, descending=True, stable=True).indices[:, : min(most, len(concepts) - 1)]
    return {concept: tuple(concepts[i] for i in row.tolist()) for concept, row in zip(concepts, best, strict=True)}
