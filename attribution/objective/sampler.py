"""How a pipeline sets its sampler, which samplers attribution can use, and what models are trained to predict."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of, network, require_pipeline
from gazetteer.diffusion.schedule import rehearsed, samples_flows, takes_ddim


def require_seeded(pipe: Any, steps: int) -> None:
    """Raise InputError for a sampler whose pictures do not follow from their seeds, or that cannot draw any."""
    require_pipeline(pipe)
    adapter, config = adapter_of(pipe), network(pipe).config
    setting = adapter.timesteps(pipe.scheduler, steps, config, latent_size(pipe))  # type: ignore[arg-type]
    unseeded = "" if adapter.seeds_steps else type(pipe).__name__
    rehearsed(pipe.scheduler, steps, adapter is UNET, unseeded, **setting)


def said_of_calls(pipe: Any) -> str:
    """What is said of a sampler with several calls a step."""
    such = ", such as DDIM (model.scheduler=ddim)" if takes_ddim(pipe.scheduler) else ""
    such = ", such as FlowMatchEulerDiscreteScheduler" if flows(pipe) else such
    return f"attribution needs a sampler with one call a step{such}."


def flows(pipe: Any) -> bool:
    """Whether a pipeline was trained by flow matching, so that it predicts a velocity."""
    return samples_flows(type(pipe.scheduler).__name__)


def latent_size(pipe: Any) -> tuple[int, int]:
    """Height and width of the latents of the model's own pictures."""
    adapter = adapter_of(pipe)
    scale = 8 if adapter is UNET else adapter.scale(pipe.vae.config)
    return adapter.latent_size(network(pipe).config, 0, 0, scale)  # type: ignore[arg-type]


def set_timesteps(pipe: Any, steps: int) -> None:
    """As the pipeline sets them."""
    config: Any = network(pipe).config
    pipe.scheduler.set_timesteps(**adapter_of(pipe).timesteps(pipe.scheduler, steps, config, latent_size(pipe)))


def training_target(scheduler: Any, latents: Tensor, eps: Tensor, timesteps: Tensor) -> Tensor:
    """What the denoiser was trained to give of latents noised by `eps`, of their shape, where it is neither in EDM's
    form nor of flow matching.

    Raises:
        InputError: a prediction that is not known, or that the scheduler cannot say.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return eps
    if kind == "v_prediction":
        if not hasattr(scheduler, "get_velocity"):
            instead = "; set model.scheduler=ddim" if takes_ddim(scheduler) else ""
            raise InputError(f"{type(scheduler).__name__} does not say what a velocity is{instead}.")
        velocity: Tensor = scheduler.get_velocity(latents, eps, timesteps)
        return velocity
    if kind == "sample":
        return latents
    raise InputError(f"The scheduler predicts {kind!r}; attribution knows epsilon, v_prediction and sample.")
