"""The denoiser's inputs on which a concept is measured: captured from a run of the pipeline, nothing copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of

# What the denoiser is called with beside latents and timestep: tensors [batch, ...], dicts of such tensors, `Shared`.
Conditioning = dict[str, Any]


@dataclass(frozen=True)
class Shared:
    """A tensor that all samples of a call have in common, as the places of FLUX's tokens are."""

    value: Tensor


@dataclass(frozen=True)
class Samples:
    """N inputs of the denoiser.

    Attributes:
        x: [N, channels, h, w], as the denoiser receives them (after the scheduler's `scale_model_input`); FLUX's are
            packed, [N, tokens, channels].
        timestep: [N].
        cond: the conditioning of the concept's prompts, each tensor [N, ...].
        base: that of the base concept (P2: c_b), or None.
        target: [N, channels, h, w] float32, what the prediction is compared with, where the objective needs it.
        weight: [N] float32, how much each counts where the objective asks; None is 1.
    """

    x: Tensor
    timestep: Tensor
    cond: Conditioning
    base: Conditioning | None = None
    target: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def at(self, index: slice | Tensor) -> Samples:
        """The samples at these places."""
        return Samples(
            self.x[index],
            self.timestep[index],
            mapped(self.cond, lambda v: v[index]),
            None if self.base is None else mapped(self.base, lambda v: v[index]),
            None if self.target is None else self.target[index],
            None if self.weight is None else self.weight[index],
        )

    def chunks(self, size: int) -> Iterator[Samples]:
        """Consecutive runs of at most `size` samples."""
        for start in range(0, len(self), size):
            yield self.at(slice(start, start + size))


def predict(unet: nn.Module, samples: Samples, conditioning: Conditioning) -> Tensor:
    """Φ(x_t, c, t): the denoiser's prediction [N, channels, h, w] (as `Samples.x`), float32."""
    told = {key: value.value if isinstance(value, Shared) else value for key, value in conditioning.items()}
    adapter = adapter_of(unet)
    if adapter is UNET:
        prediction: Tensor = unet(samples.x, samples.timestep, return_dict=False, **told)[0]
    else:
        latents, time = adapter.inputs
        prediction = unet(return_dict=False, **{latents: samples.x, time: samples.timestep}, **told)[0]
    return prediction.float()


def freeze_target(unet: nn.Module, samples: Samples, factor: float = 0.0, batch: int = 16) -> Samples:
    """The samples with a guided prediction of the present model as target, which later edits cannot move.

    target = Φ(x_t, c_b, t; w) + factor · (Φ(x_t, c, t; w) − Φ(x_t, c_b, t; w)), as classifier-free guidance: at 0 the
    base's prediction, at 1 the concept's own, beyond 1 more of the concept, below 0 its opposite (ESD's training
    target, 2303.07345 eq. 7, is −η).

    Raises:
        InputError: samples without a base, and a factor other than 1.
    """
    if samples.base is None and factor != 1.0:
        raise InputError("These samples have no base concept to freeze.")
    targets = []
    with torch.no_grad():
        for part in samples.chunks(batch):
            own = predict(unet, part, part.cond) if factor else 0.0
            base = predict(unet, part, part.base or {}) if factor != 1.0 else 0.0
            targets.append(torch.as_tensor(factor * own + (1.0 - factor) * base))
    return replace(samples, target=torch.cat(targets))


def join(*several: Samples) -> Samples:
    """Samples after one another; a base, target or weight stays only where all have one."""
    return Samples(
        torch.cat([s.x for s in several]),
        torch.cat([s.timestep for s in several]),
        _joined([s.cond for s in several]),
        None if any(s.base is None for s in several) else _joined([s.base or {} for s in several]),
        None if any(s.target is None for s in several) else torch.cat([torch.as_tensor(s.target) for s in several]),
        None if any(s.weight is None for s in several) else torch.cat([torch.as_tensor(s.weight) for s in several]),
    )


def shuffled(samples: Samples, seed: int) -> Samples:
    """The samples in a random order, so that every chunk has some of each kind."""
    return samples.at(torch.randperm(len(samples), generator=torch.Generator("cpu").manual_seed(seed)))


def repeated(values: Conditioning, times: int) -> Conditioning:
    """All rows of a conditioning, and all of them again, so many times."""
    return mapped(values, lambda v: torch.cat([v] * times))


def mapped(values: Conditioning, change: Any) -> Conditioning:
    """A conditioning with every tensor in it changed by a function."""
    return {
        key: mapped(value, change) if isinstance(value, dict) else change(value) if isinstance(value, Tensor) else value
        for key, value in values.items()
    }


def _joined(several: Sequence[Conditioning]) -> Conditioning:
    first = several[0]
    return {
        key: _joined([samples[key] for samples in several])
        if isinstance(value, dict)
        else torch.cat([samples[key] for samples in several])
        if isinstance(value, Tensor)
        else value
        for key, value in first.items()
    }
