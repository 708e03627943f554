"""Load a diffusers text-to-image pipeline by folder or hub id, and say in one sentence why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import InputError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class ModelConfig:
    """Which text-to-image model, and how to hold it.

    Attributes:
        path: a folder in diffusers format, or a hub id.
        revision: hub revision to pin, empty for the default.
        variant: weight variant, e.g. ``fp16``, empty for none.
        dtype: one of DTYPES.
        device: a torch device, e.g. ``cpu``, ``cuda``, ``cuda:1``.
        scheduler: ``ddim`` replaces the model's scheduler by DDIM with the same noise schedule
            (the paper's sampler); empty keeps the model's own.
    """

    path: str
    revision: str = ""
    variant: str = ""
    dtype: str = "float32"
    device: str = "cpu"
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"model.dtype is {self.dtype!r}; accepted: {', '.join(DTYPES)}.")
        if self.scheduler not in ("", "ddim"):
            raise InputError(f"model.scheduler is {self.scheduler!r}; accepted: ddim, or empty.")


def load_pipeline(config: ModelConfig) -> DiffusionPipeline:
    """The pipeline in evaluation mode on its device, safetensors only, progress bars off.

    Raises:
        InputError: the folder or hub id does not hold a diffusers pipeline with a U-Net.
    """
    import torch
    from diffusers import DDIMScheduler, DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging

    if _looks_like_folder(config.path) and not (Path(config.path) / "model_index.json").is_file():
        raise InputError(
            f"{config.path} is not a diffusers pipeline folder: it has no model_index.json "
            "(accepted: such a folder, or a hub id like CompVis/stable-diffusion-v1-4)."
        )
    diffusers_logging.disable_progress_bar()
    options = {name: value for name, value in vars(config).items() if name in ("revision", "variant") and value}
    try:
        pipe = DiffusionPipeline.from_pretrained(
            config.path, dtype=getattr(torch, config.dtype), use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"The text-to-image model {config.path} could not be loaded: {reason}") from error
    if not hasattr(pipe, "unet"):
        raise InputError(f"{config.path} is a {type(pipe).__name__}, which has no U-Net to look into.")
    if config.scheduler == "ddim":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    try:
        pipe = pipe.to(config.device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"model.device {config.device!r} cannot be used here: {error}") from error
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _looks_like_folder(path: str) -> bool:
    """A hub id is at most owner/name; anything else that is meant locally has more of a path to it."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).exists()
