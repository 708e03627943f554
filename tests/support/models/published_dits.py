"""Configurations of published transformers at full size, written to disk without a single weight.

The numbers are those of the published configuration files; what is left out is the default of the library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

CLIP_L: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768,
}  # fmt: skip
CLIP_G: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280,
}  # fmt: skip
T5_XXL: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
VAE_16: dict[str, Any] = {
    "latent_channels": 16, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
SD35_MEDIUM: dict[str, Any] = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
    "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}  # fmt: skip


def write_sd35_medium(folder: Path) -> Path:
    """Stable Diffusion 3.5 medium."""
    from transformers import CLIPTextConfig, T5Config

    texts = {"text_encoder": CLIPTextConfig(**CLIP_L), "text_encoder_2": CLIPTextConfig(**CLIP_G)}
    texts["text_encoder_3"] = T5Config(**T5_XXL)
    kinds = ("CLIPTextModelWithProjection", "CLIPTextModelWithProjection", "T5EncoderModel")
    parts = {"transformer": ("SD3Transformer2DModel", SD35_MEDIUM), "vae": ("AutoencoderKL", VAE_16)}
    return _write(
        folder, "StableDiffusion3Pipeline", parts, dict(zip(texts, kinds, strict=True)), texts, {"shift": 3.0}
    )


def write_flux_schnell(folder: Path) -> Path:
    """FLUX.1-schnell: the defaults of the library."""
    from transformers import CLIPTextConfig, T5Config

    texts = {"text_encoder": CLIPTextConfig(**CLIP_L), "text_encoder_2": T5Config(**T5_XXL)}
    kinds = {"text_encoder": "CLIPTextModel", "text_encoder_2": "T5EncoderModel"}
    parts = {"transformer": ("FluxTransformer2DModel", {}), "vae": ("AutoencoderKL", VAE_16)}
    return _write(folder, "FluxPipeline", parts, kinds, texts, {"shift": 1.0})


def write_qwen_image(folder: Path) -> Path:
    """Qwen-Image: the defaults of the library, with Qwen 2.5 VL 7B."""
    from transformers import Qwen2_5_VLConfig

    text = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4,
        }
    )  # fmt: skip
    parts = {"transformer": ("QwenImageTransformer2DModel", {}), "vae": ("AutoencoderKLQwenImage", {})}
    kinds = {"text_encoder": "Qwen2_5_VLForConditionalGeneration"}
    shift = {"use_dynamic_shifting": True, "shift_terminal": 0.02, "max_image_seq_len": 8192, "max_shift": 0.9}
    return _write(folder, "QwenImagePipeline", parts, kinds, {"text_encoder": text}, shift)


def _write(
    folder: Path, pipeline: str, parts: dict[str, tuple[str, dict[str, Any]]], kinds: dict[str, str],
    texts: dict[str, Any], scheduler: dict[str, Any],
) -> Path:  # fmt: skip
    import diffusers

    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    for name, (kind, settings) in parts.items():
        with torch.device("meta"):
            getattr(diffusers, kind)(**settings).save_config(folder / name)
        index[name] = ["diffusers", kind]
    for name, config in texts.items():
        config.save_pretrained(folder / name)
        index[name] = ["transformers", kinds[name]]
    diffusers.FlowMatchEulerDiscreteScheduler(**scheduler).save_config(folder / "scheduler")
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
