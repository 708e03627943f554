"""Which blocks a model offers to listen at, with grid and width, found without loading a single weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gazetteer.diffusion.capture import attention_blocks, updates, width_of
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.load import ModelConfig, loading, read_index
from gazetteer.diffusion.schedule import rehearsed
from gazetteer.diffusion.suitable import check_class, check_unet, latent_size


@dataclass(frozen=True)
class Block:
    """A block of a U-Net: its diffusers path, grid in cells at the model's own picture size, and channels."""

    block: str
    height: int
    width: int
    channels: int


def blocks_of(config: ModelConfig) -> list[Block]:
    """The cross-attention transformer blocks of the model at `config.path`, in module order.

    Raises:
        InputError: the path does not hold a diffusers pipeline with a U-Net.
    """
    return describe(_without_weights(config))


def check_model(config: ModelConfig, generation: GenerationConfig) -> dict[str, int]:
    """What can be known from its configurations of whether a model draws and is heard as `generation` asks.

    Returns:
        the channels of every block.

    Raises:
        InputError: as `blocks_of`; a path that is no block, or one that writes no update; a size the model cannot
            draw, a branch it does not run, or a sampler that does not fit or cannot take so many steps.
    """
    import diffusers

    unet = _without_weights(config, generation.branches)
    with loading(config):
        index, source, options = _index(config)
        scale = 2 ** (len(_vae(source, options).get("block_out_channels", (0,) * 4)) - 1)
        kind = diffusers.DDIMScheduler if config.scheduler == "ddim" else getattr(diffusers, index["scheduler"][1])
        scheduler = kind.from_pretrained(source, subfolder="scheduler", **options)
    latent_size(unet.config, generation.height, generation.width, scale)
    rehearsed(scheduler, generation.steps)
    return {block: width_of(unet, block) for block in generation.blocks}


def _index(config: ModelConfig) -> tuple[dict[str, Any], str, dict[str, str]]:
    """The pipeline's index, where its configurations lie, and what to ask for them with."""
    source = config.config if config.single_file else config.path
    options = {"revision": config.revision} if config.revision and not config.single_file else {}
    return read_index(config), source, options


def _vae(source: str, options: dict[str, str]) -> dict[str, Any]:
    from diffusers import AutoencoderKL  # whose reader takes the configuration of any other VAE too

    return dict(AutoencoderKL.load_config(source, subfolder="vae", **options))


def _without_weights(config: ModelConfig, branches: Sequence[str] = ()) -> Any:
    """The U-Net of a pipeline on the meta device; raises InputError where pictures cannot come from text alone."""
    import torch
    from diffusers import UNet2DConditionModel

    with loading(config):
        index, source, options = _index(config)
        check_class(str(index["_class_name"]))
        settings = UNet2DConditionModel.load_config(source, subfolder="unet", **options)
        check_unet(settings, _vae(source, options), branches)
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(settings)
    return unet


def describe(unet: Any) -> list[Block]:
    """The blocks of a U-Net whose weights are on the meta device: one call with shapes and no numbers."""
    import torch

    settings = unet.config
    height, width = latent_size(settings)
    latents = torch.empty(1, settings.in_channels, height, width, device="meta")
    words = settings.cross_attention_dim
    states = torch.empty(1, 77, words if isinstance(words, int) else max(words), device="meta")
    more: dict[str, Any] = {}
    if settings.addition_embed_type == "text_time":
        # SDXL: six numbers say size and crop, the rest of the width is the pooled text
        pooled = settings.projection_class_embeddings_input_dim - 6 * settings.addition_time_embed_dim
        more["added_cond_kwargs"] = {
            "text_embeds": torch.empty(1, pooled, device="meta"), "time_ids": torch.empty(1, 6, device="meta"),
        }  # fmt: skip
    found: dict[str, Block] = {}

    def on_update(block: str, update: Any) -> None:
        _, channels, rows, columns = update.shape
        found[block] = Block(block, rows, columns, channels)

    paths = attention_blocks(unet)
    with torch.no_grad(), updates(unet.eval(), paths, on_update):
        unet(latents, 1, encoder_hidden_states=states, **more)
    return [found[path] for path in paths]
