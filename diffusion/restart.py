"""Begin a generation in its middle, from latents kept earlier: edits of late steps need not repeat the early ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

RESTARTABLE = ("DDIMScheduler",)
"""Samplers whose step depends on latents and timestep alone, and that scale neither at the start nor on the way."""


def can_restart(pipe: Any) -> bool:
    """Whether `starting_at` gives the same pictures as a whole generation with this pipeline's sampler."""
    return type(pipe.scheduler).__name__ in RESTARTABLE


@contextmanager
def keep_latents(pipe: Any, timesteps: Collection[int], images: int) -> Iterator[dict[int, Tensor]]:
    """While open, keeps the latents [images, channels, h, w] that the U-Net gets at the given timesteps."""
    kept: dict[int, Tensor] = {}

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = kwargs["timestep"] if "timestep" in kwargs else args[1]
        timestep = int(value.flatten()[0] if isinstance(value, Tensor) else value)
        if timestep in timesteps:
            # With guidance the second half of the batch repeats the first.
            kept[timestep] = (kwargs["sample"] if "sample" in kwargs else args[0])[:images].detach().clone()

    handle = pipe.unet.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


def coarse_stride(pipe: Any, steps: int, wanted: int) -> int:
    """The largest stride up to `wanted` with which `starting_at` can walk a schedule of so many steps."""
    length = int(pipe.scheduler.config.num_train_timesteps)
    fits = [s for s in range(1, wanted + 1) if steps % s == 0 and length // (steps // s) == s * (length // steps)]
    return max(fits, default=1)


@contextmanager
def starting_at(pipe: Any, step: int, stride: int = 1) -> Iterator[None]:
    """While open, generations run the sampler steps from `step` (0-based) on; give them latents kept there.

    Args:
        stride: run only every so many-th step, each as long as so many; one that `coarse_stride` gives.

    Raises:
        ValueError: the sampler is not RESTARTABLE and `step` is not 0 or `stride` not 1.
    """
    if (step or stride > 1) and not can_restart(pipe):
        raise ValueError(f"{type(pipe.scheduler).__name__} cannot begin at step {step} and take every {stride}.")
    scheduler = pipe.scheduler
    whole = scheduler.set_timesteps

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[step::stride]
        scheduler.num_inference_steps //= stride  # from which DDIM takes the length of its steps

    scheduler.set_timesteps = set_timesteps
    try:
        yield
    finally:
        del scheduler.set_timesteps
