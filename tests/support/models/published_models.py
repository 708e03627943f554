"""Published models at full size with random weights, written to disk as their authors publish them.

The numbers are those of the published configuration files; what is left out is the default of the library.
"""

from __future__ import annotations

import gc
import importlib
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.support.models.grounding_dino_keys import GROUNDING_DINO
from tests.support.models.original_models import original_weights, shaken
from tests.support.models.sam_keys import SAM

SD14_UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 768, "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
SDXL_TURBO_UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20), "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SDXL_UNET = SDXL_TURBO_UNET | {"sample_size": 128}
SD_VAE: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "sample_size": 512, "layers_per_block": 2,
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
SD14_SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "steps_offset": 1, "skip_prk_steps": True,
}  # fmt: skip
SD14_TEXT: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu",
}  # fmt: skip


def clip_tokenizer(words: list[str]) -> Any:
    """A CLIP tokenizer with a vocabulary made here, reading 77 tokens as the published one does."""
    from benchmarks.scenes.text_to_image.tokens import build_tokenizer

    tokenizer = build_tokenizer(words)
    tokenizer.model_max_length = 77
    return tokenizer


def write_sd14(folder: Path, captions: list[str]) -> Path:
    """SD 1.4 as a diffusers folder: PNDM scheduler, no safety checker."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(captions)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(**SD_VAE), unet=UNet2DConditionModel(**SD14_UNET), tokenizer=tokenizer,
        text_encoder=CLIPTextModel(CLIPTextConfig(**SD14_TEXT, **ids)), scheduler=PNDMScheduler(**SD14_SCHEDULER),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder, safe_serialization=True)
    del pipe
    gc.collect()
    return folder


def bert_tokenizer(words: list[str]) -> Any:
    """A BERT tokenizer whose special tokens have the published ids, and that knows `words`."""
    from transformers import BertTokenizerFast

    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    vocabulary = {f"[unused{i}]": i for i in range(1030) if i not in special.values()} | special
    return BertTokenizerFast(vocab=vocabulary | {word: 1030 + i for i, word in enumerate(words)})


def write_bert(folder: Path, words: list[str]) -> Path:
    """What is read of bert-base-uncased beside a Grounding DINO checkpoint: configuration and tokenizer."""
    from transformers import BertConfig

    BertConfig().save_pretrained(folder)
    bert_tokenizer(words).save_pretrained(folder)
    return folder


def write_grounding_dino(folder: Path, words: list[str]) -> Path:
    """Grounding DINO with Swin-T as transformers publishes it (grounding-dino-tiny)."""
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7,
        out_indices=[2, 3, 4],
    )  # fmt: skip
    model = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin, text_config=BertConfig()))
    shaken(model, 0.01).save_pretrained(folder)
    bert_tokenizer(words).save_pretrained(folder)
    GroundingDinoImageProcessor().save_pretrained(folder)
    return folder


def write_sam(folder: Path) -> Path:
    """SAM ViT-B as transformers publishes it (sam-vit-base)."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    torch.manual_seed(0)
    shaken(SamModel(SamConfig()), 0.01).save_pretrained(folder)
    SamProcessor(SamImageProcessor()).save_pretrained(folder)
    return folder


def write_original_grounding_dino(transformers_folder: Path, folder: Path) -> Path:
    """The same weights as its authors publish them: ``groundingdino_swint_ogc.pth`` beside the package's own file."""
    folder.mkdir(exist_ok=True)
    torch.save({"model": original_weights(transformers_folder, GROUNDING_DINO)}, folder / "groundingdino_swint_ogc.pth")
    config = Path(importlib.import_module("groundingdino").__file__ or "").parent / "config"
    shutil.copy(config / "GroundingDINO_SwinT_OGC.py", folder)
    return folder / "groundingdino_swint_ogc.pth"


def write_original_sam(transformers_folder: Path, folder: Path) -> Path:
    """The same weights as its authors publish them, ``sam_vit_b_01ec64.pth``."""
    folder.mkdir(exist_ok=True)
    torch.save(original_weights(transformers_folder, SAM), folder / "sam_vit_b_01ec64.pth")
    return folder / "sam_vit_b_01ec64.pth"


def write_saes(folder: Path, sites: list[Any], width: int = 1280, features: int = 5120) -> Path:
    """Random autoencoders of the paper's size, in half precision."""
    from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder

    for seed, site in enumerate(sites):
        sae = SparseAutoencoder(SAEConfig(width, features, 10)).initialise(seed)
        sae.save_pretrained(folder / site.slug, {"site": site}, torch.float16)
    return folder
