"""A few masked gradient steps on chosen weights instead of zeroing them: the baseline P2's reviewers asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribution.delta import Delta, difference
from attribution.problem import Problem
from attribution.selection import Chosen
from data.errors import InputError


def gradient_steps(
    problems: Sequence[tuple[float, Problem]],
    chosen: Chosen,
    *,
    steps: int,
    rate: float,
    provenance: dict[str, Any] | None = None,
) -> Delta:
    """Adam on Σ factor · J over only the chosen weights; the model is left as it was, the edit is returned.

    With one problem and factor 1 this lowers J; further problems (say, the distance to the intact model's predictions
    on other concepts) can hold things in place.

    Args:
        problems: (factor, problem) pairs over the same weights.
        chosen: flat indices per parameter.
        steps, rate: of Adam; the rate is relative to the root mean square of each parameter.

    Raises:
        InputError: no problem or nothing chosen.
    """
    if not problems or not chosen:
        raise InputError("Gradient steps need an objective and some weights to move.")
    weights = {name: weight for name, weight in problems[0][1].weights.items() if name in chosen}
    with _restored(weights) as before:
        # Moments in float32, and only of the chosen entries.
        moments = {name: [torch.zeros(len(index)), torch.zeros(len(index))] for name, index in chosen.items()}
        scale = {name: float(w.detach().float().pow(2).mean().sqrt()) for name, w in weights.items()}
        for step in range(1, steps + 1):
            gradients = [(factor, problem.gradient()) for factor, problem in problems]
            with torch.no_grad():
                for name, weight in weights.items():
                    index = chosen[name].to(weight.device)
                    g = sum((factor * found[name].reshape(-1)[index] for factor, found in gradients), torch.tensor(0.0))
                    first, second = (m.to(weight.device) for m in moments[name])
                    first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g**2
                    moments[name] = [first, second]
                    move = (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-12)
                    weight.view(-1)[index] -= (rate * scale[name] * move).to(weight.dtype)
        return difference(before, weights, provenance or {})


@contextmanager
def _restored(weights: Mapping[str, nn.Parameter]) -> Any:
    before: dict[str, Tensor] = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        yield before
    finally:
        with torch.no_grad():
            for name, old in before.items():
                weights[name].copy_(old)
