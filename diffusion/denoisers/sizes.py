"""Sizes of pictures in latent cells, and of the text beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gazetteer.data.core.errors import InputError


def latent_size(
    config: Any, height: int = 0, width: int = 0, scale: int = 8, own: Any = None, patch: int = 1,
    most: Sequence[int | None] = (None, None),
) -> tuple[int, int]:  # fmt: skip
    """Latent (height, width) of pictures of a size in px, 0 for the denoiser's own.

    Args:
        config: of the denoiser; its `sample_size` is a number or [height, width], in latent cells.
        scale: px a latent cell.
        own: the model's own size in latent cells where it is not the denoiser's `sample_size`.
        patch: latent cells a side that the denoiser takes as one token.
        most: tokens in height and width that it knows places for; None: for as many as there are.

    Raises:
        InputError: a size that is no multiple of `scale` times `patch`, one that the denoiser does not state, or one
            that it has no places for.
    """
    if own is None:
        own = config["sample_size"] if isinstance(config, Mapping) else config.sample_size
    sides = tuple(own) if isinstance(own, list | tuple) else (own, own)
    if len(sides) != 2 or not all(side is None or (type(side) is int and side > 0) for side in sides):
        raise InputError(f"The denoiser's sample_size must be a whole number of latent cells, or two, not {own!r}.")
    cells, step = [], scale * patch
    for name, asked, side, places in zip(("height", "width"), (height, width), sides, most, strict=True):
        if asked % step:
            near = max(step, round(asked / step) * step)
            raise InputError(
                f"generation.{name} is {asked}, but this model's pictures measure a multiple of {step} px; "
                f"set generation.{name}={near}."
            )
        if not asked and side is None:
            raise InputError(f"The denoiser does not state the size of its pictures; set generation.{name} in px.")
        cells.append(asked // scale if asked else int(side))
        if places is not None and cells[-1] // patch > places:
            raise InputError(
                f"Pictures {cells[-1] * scale} px in {name} are larger than this model has places for; set "
                f"generation.{name}={places * step} or less."
            )
    return cells[0], cells[1]


def table_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """Places in height and width of a transformer whose rotations are kept in tables, the first of them the text's."""
    _, height, width = config["axes_lens"]
    return height, width


def text_width(config: Any) -> int:
    """Channels of the text that a U-Net of a configuration is given: what it projects first (Kolors), or attends to."""
    if config.encoder_hid_dim_type == "text_proj":
        return int(config.encoder_hid_dim)
    width = config.cross_attention_dim
    return int(width if isinstance(width, int) else max(width))
