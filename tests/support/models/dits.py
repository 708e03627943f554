"""Pipelines of transformers with a few thousand random weights, built through the public classes of diffusers.

Pictures measure 32 px a side or so, latents 8 x 8 or 16 x 16, blocks have a few dozen channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from benchmarks.scenes.text_to_image.tokens import build_tokenizer
from gazetteer.data.inputs.prompts import split_of
from tests.support.models.tokenizers import bytes_tokenizer, mistral_processor, t5_tokenizer

CAPTIONS = ["a red house", "two boats on the sea", "a dog at night"]


def _kl(levels: int = 2, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8,) * levels, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=32, mid_block_add_attention=False, **more,
    )  # fmt: skip


def _clip(tokenizer: Any, kind: Any = CLIPTextModel) -> Any:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=77, projection_dim=16, **ids,
        )
    )  # fmt: skip


def small_t5() -> Any:
    """Its states are as wide as SD 3's and FLUX's networks here take them."""
    return T5EncoderModel(T5Config(vocab_size=512, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def _gemma() -> Any:
    return Gemma2Model(
        Gemma2Config(
            vocab_size=512, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=4,
        )
    )  # fmt: skip


def _qwen3(layers: int = 2) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=512, hidden_size=8, intermediate_size=8, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4,
    )  # fmt: skip


def _flow(**more: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**more)


def sd3() -> Any:
    """SD 3 with two CLIP encoders and no T5; blocks of 8 x 8 cells in latents of 16 x 16."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    clip = build_tokenizer(CAPTIONS)
    clip.model_max_length = 77
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
            pos_embed_max_size=24,
        ),
        scheduler=_flow(shift=3.0), vae=_kl(shift_factor=0.1), tokenizer=clip, tokenizer_2=clip,
        text_encoder=_clip(clip, CLIPTextModelWithProjection), text_encoder_2=_clip(clip, CLIPTextModelWithProjection),
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


def flux(guidance_embeds: bool = False) -> Any:
    """FLUX.1 schnell, or dev with `guidance_embeds`."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    clip = build_tokenizer(CAPTIONS)
    clip.model_max_length = 77
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
        scheduler=_flow(use_dynamic_shifting=guidance_embeds), vae=_kl(shift_factor=0.1), text_encoder=_clip(clip),
        tokenizer=clip, text_encoder_2=small_t5(), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def chroma() -> Any:
    """Chroma."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    return ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_hidden_dim=32,
            approximator_layers=1, approximator_num_channels=16,
        ),
        scheduler=_flow(), vae=_kl(shift_factor=0.1), text_encoder=small_t5(), tokenizer=bytes_tokenizer(),
    )  # fmt: skip


def _flux2_vae() -> Any:
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=32, mid_block_add_attention=False,
    )  # fmt: skip


def flux2() -> Any:
    """FLUX.2 dev, whose encoder is a model of pictures and text; three of its 31 states are read."""
    from diffusers import Flux2Pipeline, Flux2Transformer2DModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "head_dim": 4}
    text = {"model_type": "mistral", "vocab_size": 512, "num_hidden_layers": 30, "num_key_value_heads": 1, **sizes}
    sight = {"model_type": "pixtral", "num_hidden_layers": 1, "image_size": 28, "patch_size": 14, **sizes}
    return Flux2Pipeline(
        transformer=Flux2Transformer2DModel(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=24, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=True,
        ),
        scheduler=_flow(use_dynamic_shifting=True), vae=_flux2_vae(), tokenizer=mistral_processor(),
        text_encoder=Mistral3ForConditionalGeneration(
            Mistral3Config(text_config=text, vision_config=sight, image_token_index=7)
        ),
    )  # fmt: skip


def flux2_klein() -> Any:
    """FLUX.2 klein that is not distilled."""
    from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel

    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=24, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        scheduler=_flow(use_dynamic_shifting=True), vae=_flux2_vae(), text_encoder=Qwen3ForCausalLM(_qwen3(28)),
        tokenizer=bytes_tokenizer(),
    )  # fmt: skip


def qwen_image() -> Any:
    """Qwen-Image."""
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel

    text = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 512, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        },
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False], latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )  # fmt: skip
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        ),
        scheduler=_flow(use_dynamic_shifting=True), vae=vae, tokenizer=bytes_tokenizer(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(text),
    )  # fmt: skip


def pixart_sigma() -> Any:
    """PixArt-Σ, sampled by a solver of diffusion."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    return PixArtSigmaPipeline(
        transformer=PixArtTransformer2DModel(
            sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2,
            caption_channels=32, in_channels=4, cross_attention_dim=16, out_channels=8, norm_num_groups=1,
        ),
        scheduler=DPMSolverMultistepScheduler(), vae=_kl(), text_encoder=small_t5(), tokenizer=bytes_tokenizer(),
    )  # fmt: skip


def sana() -> Any:
    """Sana."""
    from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel

    vae = AutoencoderDC(
        latent_channels=4, attention_head_dim=4, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        decoder_norm_types=("rms_norm", "rms_norm"), decoder_act_fns=("silu", "silu"),
    )  # fmt: skip
    return SanaPipeline(
        transformer=SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=8,
            num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=8,
            sample_size=8,
        ),
        scheduler=_flow(), vae=vae, text_encoder=_gemma(), tokenizer=bytes_tokenizer(),
    )  # fmt: skip


def lumina2() -> Any:
    """Lumina-Image 2.0; its pipeline knows VAEs that halve three times alone."""
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, hidden_size=16, num_layers=2, num_refiner_layers=1,
            num_attention_heads=2, num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 2, 2),
            axes_lens=(300, 512, 512), cap_feat_dim=8,
        ),
        scheduler=_flow(), vae=_kl(4, shift_factor=0.1), text_encoder=_gemma(), tokenizer=bytes_tokenizer(),
    )  # fmt: skip


def z_image() -> Any:
    """Z-Image."""
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    return ZImagePipeline(
        transformer=ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=8,
            axes_dims=[8, 4, 4], axes_lens=[1024, 64, 64],
        ),
        scheduler=_flow(), vae=_kl(shift_factor=0.1), text_encoder=Qwen3Model(_qwen3()), tokenizer=bytes_tokenizer(),
    )  # fmt: skip


def hunyuan() -> Any:
    """HunyuanDiT, sampled by a solver of diffusion; the last of its blocks is given what the first gave.

    Its pipeline knows VAEs that halve three times alone.
    """
    from diffusers import DPMSolverMultistepScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline

    bert = BertModel(
        BertConfig(
            vocab_size=512, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        )
    )  # fmt: skip
    return HunyuanDiTPipeline(
        transformer=HunyuanDiT2DModel(
            sample_size=16, num_layers=4, patch_size=2, attention_head_dim=8, num_attention_heads=2, hidden_size=16,
            in_channels=4, cross_attention_dim=16, cross_attention_dim_t5=32, pooled_projection_dim=16,
        ),
        scheduler=DPMSolverMultistepScheduler(), vae=_kl(4), text_encoder=bert, tokenizer=bytes_tokenizer(),
        text_encoder_2=small_t5(), tokenizer_2=bytes_tokenizer(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd3": sd3, "flux": flux, "chroma": chroma, "flux2": flux2, "flux2_klein": flux2_klein,
    "qwen_image": qwen_image, "pixart_sigma": pixart_sigma, "sana": sana, "lumina2": lumina2, "z_image": z_image,
    "hunyuan": hunyuan,
}  # fmt: skip
"""Every family by the function that builds one."""


def tiny_dit(family: str, seed: int = 0) -> Any:
    """A pipeline of a family with random weights, none of which is left at zero, in evaluation mode."""
    torch.manual_seed(seed)
    pipe = FAMILIES[family]()
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)
        for parameter in pipe.transformer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return pipe


def saved_dit(family: str, folder: Path) -> Path:
    """A pipeline of a family as a folder in diffusers format."""
    tiny_dit(family).save_pretrained(folder)
    json.loads((folder / "model_index.json").read_text())
    return folder


def two_prompts(folder: Path) -> str:
    """The setting of prompts for two pictures, one to find labels on and one held out, whatever world is embedded."""
    prompts = ("a boat on the sea", "a tree on grass")
    assert {split_of(prompt, 0.3) for prompt in prompts} == {"discovery", "heldout"}
    (folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    return f"prompts.path={folder / 'prompts.txt'}"
