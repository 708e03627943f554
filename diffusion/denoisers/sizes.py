"""Sizes of pictures in latent cells, and of the text beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gazetteer.data.core.errors import InputError


def latent_size(
    config: Any, height: int = 0, width: int = 0, scale: int = 8, own: Any = None, patch: int = 1
) -> tuple[int, int]:
    """Latent (height, width) of pictures of a size in px, 0 for the denoiser's own.

    Args:
        config: of the denoiser; its `sample_size` is a number or [height, width], in latent cells.
        scale: px a latent cell.
        own: the model's own size in latent cells where it is not the denoiser's `sample_size`.
        patch: latent cells a side that the denoiser takes as one token.

    Raises:
        InputError: a size that is no multiple of `scale` times `patch`, or one that the denoiser does not state.
    """
    if own is None:
        own = config["sample_size"] if isinstance(config, Mapping) else config.sample_size
    sides = (own, own) if own is None or isinstance(own, int) else tuple(own)
    cells, step = [], scale * patch
    for name, asked, side in zip(("height", "width"), (height, width), sides, strict=True):
        if asked % step:
            near = max(step, round(asked / step) * step)
            raise InputError(
                f"generation.{name} is {asked}, but this model's pictures measure a multiple of {step} px; "
                f"set generation.{name}={near}."
            )
        if not asked and side is None:
            raise InputError(f"The denoiser does not state the size of its pictures; set generation.{name} in px.")
        cells.append(asked // scale if asked else int(side))
    return cells[0], cells[1]


def text_width(config: Any) -> int:
    """Channels of the text that a U-Net of a configuration is given: what it projects first (Kolors), or attends to."""
    if config.encoder_hid_dim_type == "text_proj":
        return int(config.encoder_hid_dim)
    width = config.cross_attention_dim
    return int(width if isinstance(width, int) else max(width))
