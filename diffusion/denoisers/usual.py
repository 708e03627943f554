"""How a pipeline draws where it is told nothing."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any


def default_of(pipe: Any, name: str) -> Any:
    """What a pipeline, or the class it is made from, takes for an argument that is not given; None: it knows none."""
    every = (inspect.signature(kind.__call__).parameters for kind in type(pipe).__mro__)
    return next((parameters[name].default for parameters in every if name in parameters), None)


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
