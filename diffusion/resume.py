"""Begin a generation in its middle, from latents kept earlier: edits of late steps need not repeat the early ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.watch import patched, watched

RESUMABLE = ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler")
"""Samplers whose step depends on latents and timestep alone, and that scale neither at the start nor on the way."""


def can_resume(pipe: Any) -> bool:
    """Whether `resumed_at` gives the same pictures as a whole generation with this pipeline's sampler."""
    drawing = pipe.scheduler.config.get("stochastic_sampling")  # noise at every step
    return type(pipe.scheduler).__name__ in RESUMABLE and not drawing


@contextmanager
def keep_latents(pipe: Any, steps: Collection[int], size: tuple[int, int]) -> Iterator[dict[int, Tensor]]:
    """While open, keeps the latents before the given steps (0-based), as the pipeline takes them for ``latents``.

    size: height and width of the latents.
    """
    latents: dict[int, Tensor] = {}
    adapter = adapter_of(pipe)

    def keep(sample: Tensor | None) -> None:
        step = watch.now.step
        if step in steps and step not in latents and sample is not None:
            latents[step] = adapter.resumable(pipe, sample.detach(), size).clone()

    with watched(pipe, on_step=keep) as watch:
        yield latents


def coarse_stride(pipe: Any, steps: int, wanted: int) -> int:
    """The largest stride up to `wanted` with which `resumed_at` can walk a schedule of so many steps."""
    if hasattr(pipe.scheduler, "sigmas"):
        return max((s for s in range(1, wanted + 1) if steps % s == 0), default=1)
    length = int(pipe.scheduler.config.num_train_timesteps)
    fits = [s for s in range(1, wanted + 1) if steps % s == 0 and length // (steps // s) == s * (length // steps)]
    return max(fits, default=1)


@contextmanager
def resumed_at(pipe: Any, step: int, stride: int = 1) -> Iterator[None]:
    """While open, generations run the sampler steps from `step` (0-based) on; give them latents kept there.

    Args:
        stride: run only every so many-th step, each as long as so many; one that `coarse_stride` gives.

    Raises:
        ValueError: the sampler is not RESUMABLE and `step` is not 0 or `stride` not 1.
    """
    if (step or stride > 1) and not can_resume(pipe):
        raise ValueError(f"{type(pipe.scheduler).__name__} cannot begin at step {step} and take every {stride}.")
    scheduler = pipe.scheduler

    def set_timesteps(usual: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        usual(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[step::stride]
        if hasattr(scheduler, "sigmas"):  # one more than timesteps: where the last step ends
            scheduler.sigmas = torch.cat([scheduler.sigmas[:-1][step::stride], scheduler.sigmas[-1:]])
        else:
            scheduler.num_inference_steps //= stride  # from which DDIM takes the length of its steps

    with patched(scheduler, "set_timesteps", set_timesteps):
        yield
