"""How a pipeline draws where it is told nothing: the settings that a first configuration begins with."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usual:
    """Sampler steps and scale of guidance, as `gazetteer.diffusion.config.generation` means them."""

    steps: int
    guidance: float


def usual_of(pipeline: str) -> Usual:
    """The defaults of a pipeline class of diffusers; where it knows two scales (Qwen-Image), of true guidance."""
    import diffusers

    takes = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
    scale: Any = takes["guidance_scale"].default
    return Usual(
        int(takes["num_inference_steps"].default), float(takes["true_cfg_scale"].default if scale is None else scale)
    )
