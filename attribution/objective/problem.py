"""A scalar J of some weights: its value and its gradient, for estimators to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.objectives import Objective
from gazetteer.attribution.objective.samples import Samples, predict
from gazetteer.data.core.errors import InputError

Scores = dict[str, Tensor]
"""One float32 number per weight, by parameter name: α, such that zeroing the weight changes J by about −α."""


@dataclass
class Problem:
    """J(w) of a module as a mean of parts, as a function of the weights under study.

    Attributes:
        model: the module that owns the weights.
        weights: the weights under study, by name; everything else is held fixed.
        parts: each call gives a vector of J values; J is the mean of them all. Called under the caller's grad mode.
        inputs: runs the model on the concept (first) and on the base (second), for estimators that read activations.
        residuals: where J is a squared length, per part what it is the squared length of, [samples, numbers].
    """

    model: nn.Module
    weights: Mapping[str, nn.Parameter]
    parts: tuple[Callable[[], Tensor], ...]
    inputs: tuple[Callable[[], object], ...] = ()
    residuals: tuple[Callable[[], Tensor], ...] = ()

    def values(self) -> Tensor:
        """J of every sample, [N] float64."""
        with torch.no_grad():
            return torch.cat([part().double().reshape(-1) for part in self.parts])

    def value(self) -> float:
        """J."""
        return float(self.values().mean())

    def gradient(self) -> Scores:
        """dJ/dw, accumulated in float32 whatever the model's dtype (P2's reference sums float16 products)."""
        total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in self.weights.items()}
        count = 0
        with _differentiable(self.weights):
            for part in self.parts:
                with torch.enable_grad():
                    values = part().reshape(-1)
                    gradients = torch.autograd.grad(values.sum(), list(self.weights.values()), allow_unused=True)
                count += len(values)
                for added, gradient in zip(total.values(), gradients, strict=True):
                    if gradient is not None:
                        added += gradient.float()
        return {name: added / max(1, count) for name, added in total.items()}

    def part(self, nth: int) -> Problem:
        """The problem on its nth part alone, counted round and round: a cheap, noisy stand-in for the whole."""
        nth %= len(self.parts)
        return replace(self, parts=(self.parts[nth],), residuals=self.residuals[nth : nth + 1])

    def curvature(self, seed: int) -> Scores:
        """h_i = E ‖dr/dw_i‖², half of J's second derivative in each weight without the residual's own (Gauss–Newton).

        J = E ‖r‖², so changing w_i by δ changes J by about δ · dJ/dw_i + δ² h_i. One random projection: with
        independent signs v, E (Σ v · dr/dw_i)² = Σ ‖dr/dw_i‖² (Hutchinson's trick), at the cost of one gradient;
        average several seeds for less noise.

        Raises:
            InputError: J is not a squared length.
        """
        if not self.residuals:
            raise InputError("This needs an objective that is a squared distance.")
        generator = torch.Generator("cpu").manual_seed(seed)
        total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in self.weights.items()}
        count = 0
        with _differentiable(self.weights):
            for part in self.residuals:
                with torch.enable_grad():
                    r = part()
                    signs = torch.randint(0, 2, r.shape, generator=generator).to(r) * 2 - 1
                    gradients = torch.autograd.grad((signs * r).sum(), list(self.weights.values()), allow_unused=True)
                count += len(r)
                for added, gradient in zip(total.values(), gradients, strict=True):
                    if gradient is not None:
                        added += gradient.float() ** 2
        return {name: added / max(1, count) for name, added in total.items()}

    @contextmanager
    def scaled(self, factors: Mapping[str, Tensor | float]) -> Iterator[None]:
        """Multiply weights while open; the exact old values come back, however it ends."""
        originals = {name: self.weights[name].detach().clone() for name in factors}
        try:
            with torch.no_grad():
                for name, factor in factors.items():
                    self.weights[name].mul_(factor.to(self.weights[name]) if isinstance(factor, Tensor) else factor)
            yield
        finally:
            with torch.no_grad():
                for name, old in originals.items():
                    self.weights[name].copy_(old)


def diffusion_problem(
    unet: nn.Module, objective: Objective, samples: Samples, weights: Mapping[str, nn.Parameter], batch: int = 8
) -> Problem:
    """The problem of an objective on a U-Net's samples, `batch` samples per call."""
    parts = list(samples.chunks(batch))

    def run(base: bool) -> None:
        with torch.no_grad():
            for part in parts:
                predict(unet, part, (part.base or part.cond) if base else part.cond)

    return Problem(
        unet,
        weights,
        tuple(partial(objective, unet, part) for part in parts),
        (lambda: run(False), lambda: run(True)),
        tuple(partial(objective.residual, unet, part) for part in parts) if hasattr(objective, "residual") else (),
    )


def check_offload(offload: str) -> None:
    """Raise InputError for a model whose weights would be elsewhere while it does not run (`ModelConfig.offload`)."""
    if offload:
        raise InputError(
            f"gazetteer attribute reads and changes weights where they are, and model.offload={offload} keeps them "
            "elsewhere; leave it out, and take model.dtype=float16 or a device with more memory."
        )


def check_here(network: nn.Module) -> None:
    """Raise InputError for a network whose weights are nowhere until it runs (accelerate's sequential offload)."""
    if any(weight.is_meta for weight in network.parameters()):
        raise InputError(
            f"The weights of this {type(network).__name__} are kept elsewhere while it does not run, where they can be "
            "neither scored nor changed; load it without sequential offload."
        )


@contextmanager
def _differentiable(weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    before = {name: weight.requires_grad for name, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        yield
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(before[name])
