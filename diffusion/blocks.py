"""Which blocks a model offers to listen at, with grid and width, found without loading a single weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gazetteer.diffusion.capture import attention_blocks, updates, width_of
from gazetteer.diffusion.load import ModelConfig, loading, read_index


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


def widths_of(config: ModelConfig, blocks: Iterable[str]) -> dict[str, int]:
    """Channels of the update that each of these blocks writes.

    Raises:
        InputError: as `blocks_of`; a path that is no block, or one that writes no update.
    """
    unet = _without_weights(config)
    return {block: width_of(unet, block) for block in blocks}


def _without_weights(config: ModelConfig) -> Any:
    """The U-Net of a pipeline on the meta device."""
    import torch
    from diffusers import UNet2DConditionModel

    with loading(config):
        read_index(config)
        source = config.config if config.single_file else config.path
        options = {"revision": config.revision} if config.revision and not config.single_file else {}
        settings = UNet2DConditionModel.load_config(source, subfolder="unet", **options)
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(settings)
    return unet


def describe(unet: Any) -> list[Block]:
    """The blocks of a U-Net whose weights are on the meta device: one call with shapes and no numbers."""
    import torch

    settings = unet.config
    size = settings.sample_size
    height, width = (size, size) if isinstance(size, int) else size
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
