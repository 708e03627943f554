"""A few masked gradient steps on chosen weights instead of zeroing them: the baseline P2's reviewers asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.edits.delta import Delta, difference, put
from gazetteer.attribution.objective.problem import Problem
from gazetteer.attribution.scores.selection import Chosen
from gazetteer.data.core.errors import InputError

Renew = Callable[[int, Callable[[], AbstractContextManager[None]]], Problem]
"""(step, as_before) -> the problem from this step on, asked for while the model is edited; `as_before()` is a context
manager in which it is as it was before any step."""


def gradient_steps(
    problem: Problem,
    chosen: Chosen,
    *,
    steps: int,
    rate: float,
    renew: Renew | None = None,
    every: int = 10,
    provenance: dict[str, Any] | None = None,
) -> Delta:
    """Adam lowers J over only the chosen weights; the model is left as it was, the edit is returned.

    The nth step uses the nth part of the problem (round and round).

    Args:
        problem: J, with whatever holds other concepts in place among its parts.
        chosen: flat indices per parameter.
        steps, rate: of Adam; the rate is relative to the root mean square of each parameter, and falls linearly to 0.
        renew: gives a new problem before every `every`-th step, the first included, for losses whose inputs depend on
            the model being trained (ESD).

    Raises:
        InputError: nothing chosen.
    """
    if not chosen:
        raise InputError("Gradient steps need some weights to move.")
    weights = {name: weight for name, weight in problem.weights.items() if name in chosen}
    problem = replace(problem, weights=weights)
    with _restored(weights) as before:
        # Moments in float32, and only of the chosen entries.
        moments = {name: [torch.zeros(len(index)), torch.zeros(len(index))] for name, index in chosen.items()}
        scale = {name: float(w.detach().float().pow(2).mean().sqrt()) for name, w in weights.items()}
        for step in range(1, steps + 1):
            if renew is not None and (step - 1) % every == 0:
                problem = replace(renew(step - 1, partial(_as_before, weights, before)), weights=weights)
            gradient = problem.part(step - 1).gradient()
            now = rate * (1 - (step - 1) / steps)
            with torch.no_grad():
                for name, weight in weights.items():
                    index = chosen[name].to(weight.device)
                    g = gradient[name].reshape(-1)[index]
                    first, second = (m.to(weight.device) for m in moments[name])
                    first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g**2
                    moments[name] = [first, second]
                    move = (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-12)
                    put(weight, index, weight.reshape(-1)[index] - (now * scale[name] * move).to(weight.dtype))
        return difference(before, weights, provenance or {})


@contextmanager
def _restored(weights: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        yield before
    finally:
        _put(weights, before)


@contextmanager
def _as_before(weights: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> Iterator[None]:
    with _restored(weights):
        _put(weights, before)
        yield


@torch.no_grad()
def _put(weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        weights[name].copy_(value)
