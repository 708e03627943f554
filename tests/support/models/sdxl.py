"""A tiny SDXL of random weights: two texts, size and crop beside them."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.models.tiny_pipeline import tiny_pipeline

PUBLISHED = {
    "block_out_channels": (8, 16, 32), "layers_per_block": 2, "transformer_layers_per_block": (1, 1, 2),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2, 4), "norm_num_groups": 4,
}  # fmt: skip
"""Three levels of two layers, as the published U-Net's."""

SMALL = {
    "block_out_channels": (16, 32), "layers_per_block": 1, "transformer_layers_per_block": (1, 2),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2), "norm_num_groups": 8,
}  # fmt: skip
"""Two levels of one layer."""


def tiny_sdxl(levels: dict[str, Any], scheduler: Any = None) -> Any:
    """The pipeline. levels: of its U-Net, PUBLISHED or SMALL; scheduler: None for Euler's."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    small = tiny_pipeline()
    torch.manual_seed(0)
    ids = {name: getattr(small.tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = CLIPTextConfig(
        vocab_size=len(small.tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, projection_dim=16, **ids,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, use_linear_projection=True, cross_attention_dim=32, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8, **levels,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=small.vae, text_encoder=CLIPTextModel(text), text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=small.tokenizer, tokenizer_2=small.tokenizer, unet=unet,
        scheduler=scheduler or EulerDiscreteScheduler(),
    )  # fmt: skip
