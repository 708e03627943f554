"""The parts of the tiny text-to-image model, and how they are exported as one pipeline folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.scenes.text_to_image.latents import LATENT_SHAPE
from benchmarks.scenes.text_to_image.tokens import MAX_LENGTH, save_legacy
from benchmarks.scenes.training.places import forget_places

WIDTH = 128


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers of width 128: token ids [B, 32] to states [B, 32, 128]."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    # CLIP's own small initial values (0.02) leave the states of all words nearly parallel, and a
    # short training does not pull them apart: start from distinct words instead.
    encoder.get_input_embeddings().weight.data.normal_(std=0.6)
    for name, parameter in encoder.named_parameters():
        if name.endswith("position_embedding.weight"):
            parameter.data.normal_(std=0.15)
    return encoder


def build_unet() -> UNet2DConditionModel:
    """Latents [B, 16, 16, 16] at 16 and 8 cells a side; words enter at 16 and in the middle; 7.8 M parameters.

    `attention_head_dim` is the number of heads per level (a historical name in diffusers).
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        block_out_channels=(128, 176),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=(4, 4),
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Noise schedule with zero signal at the last step, so that layouts start from pure noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def assemble(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> StableDiffusionPipeline:
    """One pipeline of the parts (shared, not copied)."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline folder with float16 safetensors; converts the pipeline in place.

    Loaded without a dtype, diffusers makes float32 of them; transformers makes what the text encoder's configuration
    says, and halves of a pipeline do not run together.
    """
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    forget_places(folder)
    save_legacy(pipeline.tokenizer, folder / "tokenizer")
