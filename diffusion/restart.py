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


@contextmanager
def starting_at(pipe: Any, step: int) -> Iterator[None]:
    """While open, generations run the sampler steps from `step` (0-based) on; give them latents kept there.

    Raises:
        ValueError: the sampler is not RESTARTABLE and `step` is not 0.
    """
    if step and not can_restart(pipe):
        raise ValueError(f"{type(pipe.scheduler).__name__} cannot begin at step {step}.")
    scheduler = pipe.scheduler
    whole = scheduler.set_timesteps

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[step:]

    scheduler.set_timesteps = set_timesteps
    try:
        yield
    finally:
        del scheduler.set_timesteps
