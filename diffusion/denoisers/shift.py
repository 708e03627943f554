"""How pipelines of flow matching set their samplers: by diffusers' own functions, so that nothing can drift apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from gazetteer.data.core.errors import InputError


def linear_sigmas(scheduler: Any, steps: int) -> dict[str, Any]:
    """Sigmas from 1 to 1/steps in equal steps, or the scheduler's own where it says so."""
    if scheduler.config.get("use_flow_sigmas"):
        return {"num_inference_steps": steps}
    return {"sigmas": np.linspace(1.0, 1 / steps, steps)}


def linear_shift(scheduler: Any, tokens: int) -> dict[str, Any]:
    """The shift of a schedule for so many tokens, by the scheduler's configuration."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    usual = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
    stated = {name: scheduler.config.get(name, value) for name, value in usual.items()}
    for name, value in stated.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"The sampler's {name} must be a number, not {value!r}; it shifts by the picture's size.")
    if stated["base_image_seq_len"] == stated["max_image_seq_len"]:
        raise InputError("The sampler's base_image_seq_len and max_image_seq_len must differ; it shifts between them.")
    return {"mu": calculate_shift(tokens, *stated.values())}
