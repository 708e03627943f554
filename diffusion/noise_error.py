"""How much worse the U-Net predicts noise when a block's update is replaced: what an autoencoder is worth to the model.

For a picture x_0 of the model itself and noise ε, x_t = √ā_t x_0 + √(1−ā_t) ε; the error is mean((ε̂(x_t, t) − ε)²)
of one guidance branch, with the update as it is, replaced by the SAE's reconstruction, by zero, and by its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.diffusion.capture import cells, replaced_update, split_branches
from gazetteer.diffusion.denoisers.registry import UNET
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.watch import Call, watched
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Replace = Callable[[Tensor], Tensor]
_UNetCall = tuple[tuple[Any, ...], dict[str, Any], int]  # args, kwargs, batch


@dataclass(frozen=True)
class NoiseErrors:
    """Mean squares of the wrongly predicted noise, in squared units of the noise; means over pictures.

    Attributes:
        plain: with the update as it is.
        sae: with the reconstruction in its place.
        zero: with zero in its place.
        mean: with the mean update in every cell; NaN where no mean was given.
    """

    plain: float
    sae: float
    zero: float
    mean: float


def mean_errors(errors: list[NoiseErrors]) -> NoiseErrors:
    """The mean over pictures, at least one."""
    return NoiseErrors(*(sum(values) / len(errors) for values in zip(*map(astuple, errors), strict=True)))


@torch.inference_mode()
def noise_errors(
    generator: Generator,
    prompt: str,
    seed: int,
    saes: Mapping[Site, SparseAutoencoder],
    means: Mapping[Site, Tensor],
) -> dict[Site, NoiseErrors]:
    """The errors of every site of `saes` on one picture.

    The picture is sampled from (prompt, seed); the noise added to it follows from the seed as well.

    Args:
        saes: by site; all of them sites of `generator`.
        means: [channels], the mean update of a site, where it is known.

    Raises:
        InputError: a scheduler without a noise schedule of the usual kind, or another kind of prediction.
    """
    pipe, config = generator.pipe, generator.config
    if generator.adapter is not UNET:
        raise InputError(
            f"Loss recovered is measured on U-Nets alone, not on {type(pipe).__name__}; sae.recover=0 leaves it out."
        )
    if any(site.port != Port(site.block) for site in saes):
        raise InputError("Loss recovered is measured on updates of the image stream; sae.recover=0 leaves it out.")
    schedule, kind = getattr(pipe.scheduler, "alphas_cumprod", None), pipe.scheduler.config.get("prediction_type")
    if schedule is None or kind not in ("epsilon", "v_prediction"):
        raise InputError(
            f"Loss recovered needs a U-Net that predicts noise (epsilon or v_prediction), not {kind} "
            f"of {type(pipe.scheduler).__name__}; set sae.recover=0 to leave it out."
        )
    size = {name: value for name in ("height", "width") if (value := getattr(config, name))}
    latents = generator.noise(seed).to(pipe.unet.device, pipe.unet.dtype)
    calls: dict[int, _UNetCall] = {}

    def record(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if call.first:
            calls[call.step] = (args, dict(kwargs), len(kwargs["sample"] if "sample" in kwargs else args[0]))

    with watched(pipe, on_call=record):
        clean = pipe(
            prompt=[prompt], latents=latents, num_inference_steps=config.steps, guidance_scale=config.guidance,
            output_type="latent", **size,
        ).images  # fmt: skip
    errors: dict[Site, NoiseErrors] = {}
    for moment in sorted({generator.moments[site] for site in saes}):
        here = {site: sae for site, sae in saes.items() if generator.moments[site] == moment}
        timestep = int(moment.timestep)
        if timestep != moment.timestep or not 0 <= timestep < len(schedule):
            raise InputError(
                "Loss recovered needs a sampler whose timesteps count the steps of training, and "
                f"{type(pipe.scheduler).__name__} calls the U-Net at {moment.timestep:g}; sae.recover=0 leaves it out."
            )
        noise = generator.noise(seed + 1 + timestep).to(clean)
        task = _Denoising(pipe.unet, calls[moment.step], clean, noise, float(schedule[timestep]), kind)
        errors |= _errors_at(task, here, means)
    return errors


def _errors_at(
    task: _Denoising, saes: Mapping[Site, SparseAutoencoder], means: Mapping[Site, Tensor]
) -> dict[Site, NoiseErrors]:
    """All sites of one timestep; both branches of a block share a call, for they do not see each other."""
    plain = task.errors()
    errors: dict[Site, NoiseErrors] = {}
    for block in sorted({site.block for site in saes}):
        here = {site.branch: site for site in saes if site.block == block}

        def replaced(values: Mapping[str, Replace], block: str = block) -> dict[str, float]:
            with replaced_update(task.unet, block, lambda update: _by_branch(update, values)):
                return task.errors()

        sae = replaced({branch: _reconstruction(saes[site]) for branch, site in here.items()})
        zero = replaced(dict.fromkeys(here, torch.zeros_like))
        known = {branch: _constant(means[site]) for branch, site in here.items() if site in means}
        mean = replaced(known) if known else {}
        for branch, site in here.items():
            average = mean[branch] if branch in known else float("nan")
            errors[site] = NoiseErrors(plain[branch], sae[branch], zero[branch], average)
    return errors


@dataclass
class _Denoising:
    """One noised picture [1, c, h, w] and the U-Net call that denoises it, guidance halves stacked as in sampling."""

    unet: nn.Module
    call: _UNetCall
    clean: Tensor
    noise: Tensor
    signal_fraction: float
    kind: str

    def errors(self) -> dict[str, float]:
        """mean((ε̂ − ε)²) by branch."""
        signal, sigma = self.signal_fraction**0.5, (1.0 - self.signal_fraction) ** 0.5
        noised = signal * self.clean + sigma * self.noise
        args, kwargs, batch = self.call
        stacked = noised.expand(batch, -1, -1, -1)
        if "sample" in kwargs:
            kwargs = kwargs | {"sample": stacked}
        else:
            args = (stacked, *args[1:])
        predicted = self.unet(*args, **kwargs)[0].float()
        if self.kind == "v_prediction":
            predicted = signal * predicted + sigma * stacked.float()
        halves = split_branches(predicted - self.noise.float(), 1)
        return {branch: float(error.double().square().mean()) for branch, error in halves.items()}


def _by_branch(update: Tensor, values: Mapping[str, Replace]) -> Tensor:
    """The update [batch, channels, height, width] with the halves of the branches in `values` replaced."""
    halves = split_branches(update, 1)
    return torch.cat([values[branch](half) if branch in values else half for branch, half in halves.items()])


def _reconstruction(sae: SparseAutoencoder) -> Replace:
    def replace(update: Tensor) -> Tensor:
        x = cells(update)[0].to(sae.bias.device, sae.bias.dtype)
        return sae(x).T.reshape(update.shape).to(update)

    return replace


def _constant(mean: Tensor) -> Replace:
    return lambda update: mean.to(update)[None, :, None, None].expand_as(update)
