"""What autoencoders for pictures make of a picture, whatever they call it."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def latents_of(vae: Any, pixels: Tensor) -> Tensor:
    """What a VAE of diffusers encodes pictures [batch, 3, H, W] of -1 to 1 into, of a distribution its mode."""
    made = vae.encode(pixels)
    if hasattr(made, "latent_dist"):
        mode: Tensor = made.latent_dist.mode()
        return mode
    given: Tensor = made.latents if hasattr(made, "latents") else made.latent
    return given
