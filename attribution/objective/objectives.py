"""Objectives J: how strongly a concept is present, one number per U-Net input (P2 section 3).

Every objective maps samples to J [N], float32 and differentiable in the weights. Contributions to J are then signed:
a weight with α > 0 carries what J measures, one with α < 0 holds it down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.samples import Samples, predict
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import import_named
from gazetteer.data.core.sites import TEXT, Port
from gazetteer.diffusion.capture import cells, find_block
from gazetteer.diffusion.watch import Passing, hooked
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Objective = Callable[[nn.Module, Samples], Tensor]


@dataclass(frozen=True)
class Erase:
    """J = ‖ sg[Φ(x_t, c_b, t; w)] − Φ(x_t, c, t; w) ‖², summed over the prediction (P2, J_cb).

    The published gradient stops at the base branch (`sg`), although J's value moves with it when weights change.

    Attributes:
        stop_gradient: as published; False lets the gradient through both branches, so that it is the gradient of
            the J that is measured.
    """

    stop_gradient: bool = True

    def residual(self, unet: nn.Module, samples: Samples) -> Tensor:
        """What J is the squared length of, [N, numbers]; raises InputError for samples without a base."""
        if samples.base is None:
            raise InputError("The erase objective needs samples with a base concept.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            base = predict(unet, samples, samples.base)
        return (predict(unet, samples, samples.cond) - base).float().flatten(1)

    def __call__(self, unet: nn.Module, samples: Samples) -> Tensor:
        """J [N]; raises InputError for samples without a base."""
        return (self.residual(unet, samples) ** 2).sum(1)


@dataclass(frozen=True)
class Distance:
    """J = weight · ‖ target − Φ(x_t, c, t; w) ‖²: erase with the base frozen before any edit (`freeze_target`)."""

    def residual(self, unet: nn.Module, samples: Samples) -> Tensor:
        """What J is the squared length of, [N, numbers]; raises InputError for samples without a target."""
        error = (predict(unet, samples, samples.cond) - _target(samples)).float().flatten(1)
        return error if samples.weight is None else error * samples.weight.sqrt().unsqueeze(1)

    def __call__(self, unet: nn.Module, samples: Samples) -> Tensor:
        """J [N]; raises InputError for samples without a target."""
        return (self.residual(unet, samples) ** 2).sum(1)


@dataclass(frozen=True)
class Anchor:
    """J = ‖ sg[Φ(x_t, c_b, t; w)] − Φ(x_t, c, t; w) ‖² + λ ‖ ε − Φ(x_t, c_b, t; w) ‖², means over the prediction.

    Concept ablation as Kumari et al. train it (2303.13516, eq. 4 and the prior loss of section 3.2): x_t are noised
    pictures of the anchor c_b (`noised_images` with ``base`` the anchor's prompts), so that the target moves with w.

    Attributes:
        prior: λ, the weight of the denoising loss that holds the anchor itself.
    """

    prior: float = 1.0

    def __call__(self, unet: nn.Module, samples: Samples) -> Tensor:
        """J [N]; raises InputError for samples without a base or a target."""
        if samples.base is None:
            raise InputError("The anchor objective needs samples with a base concept.")
        anchor = predict(unet, samples, samples.base)
        predicted = predict(unet, samples, samples.cond)
        away = ((predicted - anchor.detach()) ** 2).flatten(1).mean(1)
        return away + self.prior * ((anchor - _target(samples)) ** 2).flatten(1).mean(1)


@dataclass(frozen=True)
class Amplify:
    """J = − mean ‖ target − Φ(x_t, c, t; w) ‖²: minus the denoising loss on pictures of the concept (P2, J_amplify).

    Zeroing its negative components raises J, i.e. lowers the loss. They are the components with w · dL/dw > 0 that
    the reference code calls positive, because it scores the loss itself.
    """

    def __call__(self, unet: nn.Module, samples: Samples) -> Tensor:
        """J [N]; raises InputError for samples without a target (`noised_images` makes them)."""
        return -((predict(unet, samples, samples.cond) - _target(samples)).float().flatten(1) ** 2).mean(1)


@dataclass(frozen=True)
class FeatureActivation:
    """J = mean over cells of an SAE feature's activation in what is heard at `port`, its block's update or output.

    Raises:
        InputError: a port of the text stream, whose padding would count as cells, or no such feature.
    """

    port: Port
    feature: int
    sae: SparseAutoencoder

    def __post_init__(self) -> None:
        if self.port.stream == TEXT:
            raise InputError(f"Weights are scored for features of the image stream alone, not for {self.port}.")
        if not 0 <= self.feature < self.sae.config.n:
            raise InputError(f"The autoencoder has features 0..{self.sae.config.n - 1}, not {self.feature}.")

    def __call__(self, unet: nn.Module, samples: Samples) -> Tensor:
        """J [N]; the gradient flows where the feature is among the k strongest."""
        vectors = cells(heard(unet, self.port, samples))
        codes = self.sae.encode(vectors.flatten(0, 1))
        active = (codes.values * (codes.indices == self.feature)).sum(1)
        return active.view(len(samples), -1).mean(1)


def heard(unet: nn.Module, port: Port, samples: Samples) -> Tensor:
    """What is heard at a port on these samples, [N, channels, h, w]; gradients flow where they may.

    Raises:
        InputError: an unknown block, or a U-Net that does not call it where a hook hears it.
    """
    seen: list[Tensor] = []

    def hook(passing: Passing) -> None:
        seen.append(passing.signal(port))

    find_block(unet, port.block)
    with hooked(unet, {port.block: hook}):
        predict(unet, samples, samples.cond)
    if len(seen) != 1:
        raise InputError(f"The U-Net called its block {port.block} {len(seen)} times where once was expected.")
    return seen[0]


def user_objective(name: str) -> Objective:
    """An objective named ``module:attribute``: a callable (unet, samples) -> J [N].

    Raises:
        InputError: it cannot be imported.
    """
    objective: Objective = import_named(name, "The objective")
    return objective


def _target(samples: Samples) -> Tensor:
    if samples.target is None:
        raise InputError("This objective needs samples with a target.")
    return samples.target
