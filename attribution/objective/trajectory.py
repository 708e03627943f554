"""The denoiser's inputs in real runs of a pipeline: trajectories, noised pictures, conditioning; nothing copied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gazetteer.attribution.objective.sampler import (
    flows,
    latent_size,
    require_seeded,
    said_of_calls,
    set_timesteps,
    training_target,
)
from gazetteer.attribution.objective.samples import Conditioning, Samples, Shared, mapped
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.denoisers.registry import UNET, adapter_of, network, require_pipeline
from gazetteer.diffusion.noised import Noised
from gazetteer.diffusion.schedule import edm_form
from gazetteer.diffusion.watch import Call, watched

PAIRINGS = ("matched", "published")
Recorded = tuple[Tensor, Tensor, Conditioning]
"""A call of the denoiser: its input, timesteps [batch] and conditioning."""


def trajectory(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 50,
    guidance: float = 3.0,
    base: str | Sequence[str] = "",
    pairing: str = "matched",
    only: Sequence[int] | None = None,
) -> Samples:
    """All (x_t, t) of one guided trajectory per (prompt, seed): `steps` guided U-Net calls serve every step.

    The reference code (P2, compute_positive_neurons.py) runs t steps anew for every t, Σ t = 1,275 guided calls for
    50 steps. The prefix of a deterministic trajectory is the same every time, so one trajectory gives the same x_t.

    Args:
        pipe: a diffusers pipeline with a U-Net, SD 3 or FLUX.1.
        prompts, seeds: one trajectory each; the noise is drawn on the CPU from the seed alone.
        base: the base concept, one for all or one per prompt.
        pairing: ``matched`` pairs x_t with its own timestep; ``published`` pairs the state after a step with the
            timestep of that step, as the reference code does.
        only: 0-based steps to keep; None keeps all. Nothing is computed beyond the last of them.

    Raises:
        InputError: wrong arguments, or a sampler with several calls a step, or one that cannot draw pictures, or not
            twice from a seed.
    """
    if pairing not in PAIRINGS:
        raise InputError(f"pairing is {pairing!r}; accepted: {', '.join(PAIRINGS)}.")
    if not prompts or len(prompts) != len(seeds):
        raise InputError(f"A trajectory needs one seed per prompt, not {len(prompts)} prompts and {len(seeds)} seeds.")
    wanted = range(steps) if only is None else only
    if any(not 0 <= step < steps for step in wanted):
        raise InputError(f"Steps lie in 0..{steps - 1}; asked for {list(wanted)}.")
    require_seeded(pipe, steps)
    last = max(wanted, default=steps - 1) + 1
    calls, final = _record(pipe, prompts, seeds, steps, guidance, last)
    if len(calls) != last:
        raise InputError(
            f"{type(pipe.scheduler).__name__} calls the {adapter_of(pipe).kind} {len(calls)} times for {last} steps; "
            + said_of_calls(pipe)
        )
    images = len(prompts)
    inputs = [x[-images:] for x, _, _ in calls]
    if pairing == "published":
        inputs = [*inputs[1:], final]
    cond = mapped(calls[0][2], lambda v: v[-images:])
    base_cond = conditioning(pipe, [base] * images if isinstance(base, str) else base, guidance)
    many = len(wanted)
    return Samples(
        torch.cat([inputs[step] for step in wanted]),
        torch.cat([calls[step][1][-images:] for step in wanted]),
        mapped(cond, lambda v: torch.cat([v] * many)),
        mapped(base_cond, lambda v: torch.cat([v] * many)),
    )


def noised_images(
    pipe: Any,
    latents: Tensor,
    prompts: Sequence[str],
    *,
    steps: int = 50,
    seed: int = 0,
    base: str | Sequence[str] = "",
    only: Sequence[int] | None = None,
    guidance: float = 1.0,
) -> Samples:
    """Noised latents of pictures at every sampler step, with what the model was trained to predict as target.

    Of flow matching x_σ = (1 − σ) x₀ + σ ε, and the target is the velocity ε − x₀ (arXiv 2403.03206, section 2); of
    models in EDM's form, whose output F means D = c_skip x + c_out F, it is that of D = x₀ (`Noised.perfect`).

    Args:
        latents: [images, channels, h, w], scaled as the denoiser sees them (`generate_latents`).
        prompts: one per picture.
        base: the base concept, one for all or one per picture, for objectives and estimators that compare with it.
        only: 0-based steps to keep; None keeps all.
        guidance: see `conditioning`.

    Raises:
        InputError: counts that differ, or a scheduler without a known training target or with several calls a step.
    """
    if len(latents) != len(prompts) or not len(latents):
        raise InputError(f"One prompt per picture, not {len(prompts)} for {len(latents)}.")
    scheduler = pipe.scheduler
    wanted = range(steps) if only is None else only
    set_timesteps(pipe, steps)
    if len(scheduler.timesteps) != steps:
        raise InputError(
            f"{type(scheduler).__name__} calls the denoiser {len(scheduler.timesteps)} times for {steps} steps; "
            + said_of_calls(pipe)
        )
    generator = torch.Generator("cpu").manual_seed(seed)
    bases = [base] * len(prompts) if isinstance(base, str) else base
    cond, base_cond = conditioning(pipe, prompts, guidance), conditioning(pipe, bases, guidance)
    made = []
    for step in wanted:
        eps = torch.randn(latents.shape, generator=generator).to(latents)
        set_timesteps(pipe, steps)  # anew, as samplers that scale by σ remember the step they are at
        made.append(_noised(pipe, step, latents, eps))
    xs, ts, targets = zip(*made, strict=True)
    return Samples(
        torch.cat(xs), torch.cat(ts),
        mapped(cond, lambda v: torch.cat([v] * len(wanted))),
        mapped(base_cond, lambda v: torch.cat([v] * len(wanted))),
        target=torch.cat(targets).float(),
    )  # fmt: skip


def _noised(pipe: Any, step: int, latents: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the denoiser is given of latents noised to a step, and told of it [images], and what it is to predict."""
    scheduler = pipe.scheduler
    timestep = scheduler.timesteps[step]
    t = timestep.to(latents.device).expand(len(latents))
    if flows(pipe):
        sigma = scheduler.sigmas[step].to(latents)
        told = torch.full_like(t, adapter_of(pipe).time(pipe, float(timestep)))
        return (1 - sigma) * latents + sigma * eps, told, eps - latents
    if edm_form(scheduler):
        state = Noised(scheduler, step, latents, eps)
        return state.read(state.noisy), t, state.perfect()
    x = scheduler.scale_model_input(scheduler.add_noise(latents, eps, t), timestep)
    return x, t, training_target(scheduler, latents, eps, t)


def generate_latents(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], *, steps: int = 50, guidance: float = 7.5
) -> Tensor:
    """Final latents [images, channels, h, w] of generated pictures, as the U-Net sees them.

    Raises:
        InputError: a sampler that cannot draw them, or not twice from a seed.
    """
    require_seeded(pipe, steps)
    return _record(pipe, prompts, seeds, steps, guidance)[1]


def conditioning(pipe: Any, prompts: Sequence[str], guidance: float = 1.0) -> Conditioning:
    """What the pipeline hands to its denoiser for these prompts, one row each, beside latents and timestep.

    guidance: what a network that has guidance among its inputs (FLUX.1 dev, LCM) is told; others hear nothing of it.
    """
    calls, _ = _record(pipe, prompts, [0] * len(prompts), 1, guidance)
    return mapped(calls[0][2], lambda v: v[-len(prompts) :])


def unconditioned(pipe: Any, prompts: Sequence[str], guidance: float) -> Conditioning:
    """`other_half`.

    Raises:
        InputError: at this scale the pipeline runs without guidance.
    """
    told = other_half(pipe, prompts, guidance)
    if told is None:
        raise InputError(
            f"{type(pipe).__name__} runs no uncond branch at guidance {guidance:g}; raise it above 1, or name a "
            "feature of the cond branch."
        )
    return told


def other_half(pipe: Any, prompts: Sequence[str], guidance: float) -> Conditioning | None:
    """What the pipeline hands to its denoiser beside these prompts in the other half of guidance, one row each.

    Not always what it makes of the empty prompt: SDXL's embeddings are zero there. None: it runs no such half.
    """
    calls, _ = _record(pipe, prompts, [0] * len(prompts), 1, guidance)
    return mapped(calls[0][2], lambda v: v[: len(prompts)]) if len(calls[0][0]) == 2 * len(prompts) else None


def noise(pipe: Any, seeds: Sequence[int]) -> Tensor:
    """Starting noise [images, channels, h, w], float32 on the CPU, of each seed alone."""
    return begin(pipe, seeds)[0]


def begin(pipe: Any, seeds: Sequence[int], grid: tuple[int, int] | None = None) -> tuple[Tensor, list[torch.Generator]]:
    """Starting noise (`noise`), and the generators it was drawn from.

    grid: height and width of the latents; None: the model's own.

    A sampler that adds noise at its steps (ancestral ones) goes on with them, so that this noise belongs to the seed
    alone too; others ask them for nothing.
    """
    require_pipeline(pipe)
    shape = (1, adapter_of(pipe).channels(network(pipe).config), *(grid or latent_size(pipe)))  # type: ignore[arg-type]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators]), generators


@torch.no_grad()
def _record(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, last: int | None = None
) -> tuple[list[Recorded], Tensor]:
    """Run the pipeline and keep every U-Net call: (x, timestep [batch], conditioning); and the final latents.

    With `last`, only so many steps are run, and the latents are those after them.
    """
    calls: list[Recorded] = []
    stop = {} if last in (None, steps) else {"callback_on_step_end": partial(_stop, last)}

    def record(_: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)), **kwargs}
        x, t = (named.pop(name) for name in adapter.inputs)
        named.pop("return_dict", None)
        told = {k: Shared(v) if k in adapter.shared else v for k, v in named.items() if v is not None}
        calls.append((x.detach(), torch.as_tensor(t).to(x.device).expand(len(x)), told))

    adapter, size = adapter_of(pipe), dict[str, int]()
    latents, generators = begin(pipe, seeds)
    if adapter is UNET:
        latents = latents.to(pipe.unet.device, pipe.unet.dtype)
    else:  # not all of them draw by default what the network was made for
        scale = adapter.scale(pipe.vae.config)
        size = {"height": latents.shape[-2] * scale, "width": latents.shape[-1] * scale}
        latents = adapter.latents(pipe, latents)
    with watched(pipe, on_call=record):
        final = pipe(
            prompt=list(prompts),
            generator=generators,
            latents=latents,
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
            **size,
            **stop,
        ).images
    return calls, final


def _stop(last: int, pipe: Any, step: int, _: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """A callback that ends a run of the pipeline after so many steps, by its own means."""
    pipe._interrupt = step >= last - 1
    return values
