"""Whether a model can be labelled at all, decided from its configurations in seconds instead of picture by picture."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from gazetteer.data.core.errors import InputError

CALLED_WITH = ("prompt", "latents", "generator", "num_inference_steps", "guidance_scale", "output_type")
"""What a pipeline is called with; one that takes less draws its own noise, or draws from something else than text."""


def latent_size(config: Any, height: int = 0, width: int = 0, scale: int = 8) -> tuple[int, int]:
    """Latent (height, width) of pictures of a size in px, 0 for the U-Net's own.

    Args:
        config: of the U-Net; its `sample_size` is a number or [height, width], in latent cells.
        scale: px a latent cell.

    Raises:
        InputError: a size that is no multiple of `scale`, or one that the U-Net does not state.
    """
    own = config["sample_size"] if isinstance(config, Mapping) else config.sample_size
    sides = (own, own) if own is None or isinstance(own, int) else tuple(own)
    found = []
    for name, asked, side in zip(("height", "width"), (height, width), sides, strict=True):
        if asked % scale:
            near = max(scale, round(asked / scale) * scale)
            raise InputError(
                f"generation.{name} is {asked}, but this model's pictures measure a multiple of {scale} px; "
                f"set generation.{name}={near}."
            )
        if not asked and side is None:
            raise InputError(f"The U-Net does not state the size of its pictures; set generation.{name} in px.")
        found.append(asked // scale if asked else int(side))
    return found[0], found[1]


def check_class(name: str) -> None:
    """Raise InputError unless the pipeline class of this name in diffusers draws pictures from text and noise alone."""
    import diffusers

    kind = getattr(diffusers, name, None)
    if kind is None:
        raise InputError(f"The model's pipeline is a {name}, which this version of diffusers does not have.")
    takes = inspect.signature(kind.__call__).parameters
    if "image" in takes:
        raise InputError(
            f"The model's pipeline is a {name}, which starts from a picture (inpainting, image to image, ControlNet "
            "and the like); features are labelled on pictures drawn from text alone: name the text-to-image model of "
            "the same family."
        )
    missing = [word for word in CALLED_WITH if word not in takes]
    if missing:
        raise InputError(f"The model's pipeline is a {name}, which takes no {', '.join(missing)}; it cannot be used.")


def check_unet(unet: Mapping[str, Any], vae: Mapping[str, Any], branches: Sequence[str] = ()) -> None:
    """Raise InputError for a U-Net that wants more than noisy latents, time and text.

    Args:
        unet, vae: configurations.
        branches: that are to be listened to.
    """
    channels, latent = unet.get("in_channels"), vae.get("latent_channels")
    if latent is not None and channels != latent:
        raise InputError(
            f"The U-Net reads {channels} channels and the VAE makes {latent}: it was trained to continue from a "
            "picture (inpainting, editing, upscaling), and features are labelled on pictures drawn from text alone."
        )
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        raise InputError("The U-Net wants a class or noise level beside the text, which no prompt can give it.")
    if unet.get("addition_embed_type") not in (None, "text", "text_time"):
        raise InputError(f"The U-Net wants {unet['addition_embed_type']} beside the text, which no prompt can give it.")
    if unet.get("time_cond_proj_dim") is not None and "uncond" in branches:
        raise InputError(
            "The U-Net is told the guidance scale (it is distilled, as LCM models are) and never runs without the "
            "prompt; set generation.branches=[cond]."
        )
