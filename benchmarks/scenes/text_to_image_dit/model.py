"""The parts of the small SD 3 transformer, how text reaches it, and how they are exported as one pipeline folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.scenes.text_to_image.tokens import MAX_LENGTH, save_legacy
from benchmarks.scenes.training.places import forget_places

TEXT_WIDTH = 96
HEADS, HEAD_WIDTH, LAYERS = 6, 32, 8
PATCH = 2
"""Latent cells along a token, as in Stable Diffusion 3, where a token stands for 16 x 16 pixels too; training of given
CPU seconds sees two and a half times as many pictures as with one."""
SHIFT = 3.0
"""Of the sampler, as Stable Diffusion 3's: half of the steps above σ = .75, around which shapes are made."""

NO_T5 = 256
"""Zeros that the pipeline puts in the place of T5's words where there is no T5 (`max_sequence_length`)."""


def build_text_encoder(tokenizer: CLIPTokenizer) -> Any:
    """Three layers, of which the pipeline takes the states after the second; a projection for the pooled text."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, projection_dim=TEXT_WIDTH,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    encoder: Any = CLIPTextModelWithProjection(config)
    encoder.get_input_embeddings().weight.data.normal_(std=0.6)  # distinct words from the start, as in the U-Net's
    for name, parameter in encoder.named_parameters():
        if name.endswith("position_embedding.weight"):
            parameter.data.normal_(std=0.15)
    return encoder


def build_transformer(channels: int, side: int) -> SD3Transformer2DModel:
    """Latents [B, channels, side, side], one token for PATCH x PATCH cells; 10.5 M parameters.

    Every block begins as the identity, and the whole as zero (Peebles & Xie 2023, adaLN-Zero).
    """
    transformer = SD3Transformer2DModel(
        sample_size=side, patch_size=PATCH, in_channels=channels, out_channels=channels, num_layers=LAYERS,
        attention_head_dim=HEAD_WIDTH, num_attention_heads=HEADS, joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH, pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=side // PATCH, qk_norm="rms_norm",
    )  # fmt: skip
    network: Any = transformer  # which diffusers' types do not know for a module
    for name, parameter in network.named_parameters():
        if any(edge in name for edge in ("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out")):
            parameter.data.zero_()
    return transformer


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Euler steps from noise to picture."""
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def conditioning(
    encoders: tuple[CLIPTextModelWithProjection, ...], tokens: Tensor, empty: int = NO_T5
) -> tuple[Tensor, Tensor]:
    """What the pipeline's `encode_prompt` gives for token ids [B, 32]: words [B, 32 + empty, width] and pooled text.

    empty: zeros after the words; the pipeline's own number, or those that `JointAttention` takes for them.
    """
    outputs = [encoder(tokens, output_hidden_states=True) for encoder in encoders]
    words = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    nothing = words.new_zeros(len(words), empty, words.shape[-1])
    return torch.cat([words, nothing], dim=1), torch.cat([output.text_embeds for output in outputs], dim=-1)


def assemble(
    vae: Any, encoders: tuple[CLIPTextModelWithProjection, ...], tokenizer: CLIPTokenizer,
    transformer: SD3Transformer2DModel,
) -> Any:  # fmt: skip
    """One pipeline of the parts (shared, not copied)."""
    if vae.config.shift_factor is None:
        vae.register_to_config(shift_factor=0.0)  # the pipeline adds it whatever it is
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=build_scheduler(), vae=vae, text_encoder=encoders[0], tokenizer=tokenizer,
        text_encoder_2=encoders[1], tokenizer_2=tokenizer, text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(pipeline: Any, folder: Path) -> None:
    """Write the pipeline folder with float16 safetensors, which are loaded as float32; converts it in place."""
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name in ("text_encoder", "text_encoder_2"):
        config = folder / name / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    forget_places(folder)
    for name in ("tokenizer", "tokenizer_2"):
        save_legacy(pipeline.tokenizer, folder / name)
