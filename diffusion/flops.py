"""Floating-point operations of a text-to-image model, counted on its real modules without their weights.

The modules are built from their configurations on the meta device and run once under torch's counter, which counts
two operations a multiplication and addition in matrix products, convolutions and attention, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.capture import attention_blocks
from gazetteer.diffusion.load import ModelConfig, check_path
from gazetteer.diffusion.suitable import latent_size


@dataclass(frozen=True)
class ModelCost:
    """What one picture costs the model.

    Attributes:
        unet: operations of one U-Net evaluation (one picture, one branch).
        text: of one prompt through every text encoder.
        decode: of one picture through the VAE's decoder.
        calls: U-Net evaluations a branch: sampler steps, plus what the sampler adds to them.
        height, width: of the picture in px.
        blocks: attention block -> (grid height, grid width, channels).
    """

    unet: int
    text: int
    decode: int
    calls: int
    height: int
    width: int
    blocks: dict[str, tuple[int, int, int]]


def model_cost(config: ModelConfig, steps: int, height: int = 0, width: int = 0) -> ModelCost:
    """Count a model; its configurations are read (of a single file, those of `config.config`), its weights are not.

    Args:
        steps: sampler steps.
        height, width: of the picture in px; 0 takes the model's own.

    Raises:
        InputError: the folder or hub id holds no such configurations, or a single file has none beside it.
    """
    import diffusers

    path, options = config.path, {"revision": config.revision} if config.revision else {}
    if config.single_file:
        check_path(config)
        path, options = config.config, {}
    try:
        index: Any = diffusers.DiffusionPipeline.load_config(path, **options)
        parts = {name: value[1] for name, value in index.items() if isinstance(value, (list, tuple)) and value[1]}
        with torch.device("meta"):
            unet, vae = (_part(getattr(diffusers, parts[name]), path, name, options) for name in ("unet", "vae"))
        name = "DDIMScheduler" if config.scheduler == "ddim" else parts["scheduler"]
        sampler = getattr(diffusers, name).from_pretrained(path, subfolder="scheduler", **options)
        texts = [_text(path, part, options) for part in parts if part.startswith("text_encoder")]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"The configurations of the model {path} could not be read: {reason}") from error
    sampler.set_timesteps(steps)
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    rows, columns = latent_size(unet.config, height, width, scale)
    height, width = rows * scale, columns * scale
    latent = torch.empty(1, unet.config.in_channels, rows, columns, device="meta")
    grids: dict[str, tuple[int, int, int]] = {}
    for block in attention_blocks(unet):
        unet.get_submodule(block).register_forward_hook(_grid_hook(grids, block))
    tokens = max((length for _, length in texts), default=77)
    return ModelCost(
        unet=count(lambda: unet(latent, torch.zeros(1, device="meta"), **_conditions(unet, tokens))),
        text=sum(operations for operations, _ in texts),
        decode=count(lambda: vae.decode(latent)),
        calls=len(sampler.timesteps), height=height, width=width, blocks=grids,
    )  # fmt: skip


def count(run: Any) -> int:
    """Operations of a call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _part(cls: Any, path: str, name: str, options: dict[str, str]) -> Any:
    return cls.from_config(cls.load_config(path, subfolder=name, **options)).eval().requires_grad_(False)


def _conditions(unet: Any, tokens: int) -> dict[str, Any]:
    """What a U-Net is given beside latents and time, of the right shapes for one picture."""
    given: dict[str, Any] = {"encoder_hidden_states": torch.empty(1, tokens, _width(unet), device="meta")}
    if unet.config.addition_embed_type == "text_time":  # SDXL
        times = 6 * unet.config.addition_time_embed_dim
        pooled = unet.config.projection_class_embeddings_input_dim - times
        given["added_cond_kwargs"] = {
            "text_embeds": torch.empty(1, pooled, device="meta"), "time_ids": torch.empty(1, 6, device="meta"),
        }  # fmt: skip
    return given


def _width(unet: Any) -> int:
    width = unet.config.cross_attention_dim
    return int(width[0] if isinstance(width, (list, tuple)) else width)


def _text(path: str, name: str, options: dict[str, str]) -> tuple[int, int]:
    """(operations, tokens) of a prompt in a transformer of width d, L layers and feed-forward width f, T tokens.

    2 T L (4 d^2 + 2 d f) for the products with weights and 4 L T^2 d for the attention.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, trust_remote_code=False, subfolder=name, **options)
    config = getattr(config, "text_config", config)
    t, d, f, layers = (
        config.max_position_embeddings, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    )  # fmt: skip
    return 2 * t * layers * (4 * d * d + 2 * d * f) + 4 * layers * t * t * d, t


def _grid_hook(grids: dict[str, tuple[int, int, int]], block: str) -> Any:
    def hook(_: nn.Module, given: tuple[Tensor, ...], output: Any) -> None:
        channels, height, width = given[0].shape[1:]
        grids[block] = (height, width, channels)

    return hook
