"""The tiny SAM of the Scenes world: its sizes, its start, its export."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from benchmarks.scenes.detector.model import IMAGE_SIZE, MEAN, STD

PATCH = 8
WIDTH = 128


def build_config() -> SamConfig:
    """About 1.5 million parameters: 16x16 image tokens, masks of 64x64 logits."""
    vision = SamVisionConfig(
        hidden_size=WIDTH, output_channels=WIDTH, num_hidden_layers=4, num_attention_heads=4, image_size=IMAGE_SIZE,
        patch_size=PATCH, mlp_ratio=3.0, window_size=8, global_attn_indexes=[1, 3], num_pos_feats=WIDTH // 2,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=IMAGE_SIZE, patch_size=PATCH)
    decoder = SamMaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=256, num_hidden_layers=2, num_attention_heads=4, iou_head_hidden_dim=WIDTH
    )
    return SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


@torch.no_grad()
def build_model() -> SamModel:
    """A fresh segmenter.

    The library's own start is meant to be overwritten by a checkpoint: encoder weights of 1e-10 and
    a positional embedding of frequency `hidden_size / 2` instead of 1. Both are redrawn here.
    """
    model = SamModel(build_config())
    for name, parameter in model.named_parameters():
        if "positional_embedding" in name:
            nn.init.normal_(parameter, std=1.0)
        elif name.endswith("pos_embed"):
            nn.init.trunc_normal_(parameter, std=0.02)
        elif parameter.dim() == 2 and "rel_pos" not in name and "embed" not in name and "token" not in name:
            nn.init.xavier_uniform_(parameter)
        elif parameter.dim() == 4:
            nn.init.kaiming_uniform_(parameter, a=5**0.5)
    return model


class DenseHead(nn.Module):
    """Reads the image embedding cell by cell during training: 17 classes and instance borders (not exported)."""

    def __init__(self, channels: int = 18, upscale: int = 4) -> None:
        super().__init__()
        self.project = nn.Conv2d(WIDTH, channels * upscale**2, 1)
        self.upscale = upscale

    def forward(self, embedding: Tensor) -> Tensor:
        """Embedding [B, WIDTH, h, w] to logits [B, channels, h * upscale, w * upscale]."""
        return F.pixel_shuffle(self.project(embedding), self.upscale)


def export(model: SamModel, folder: str | os.PathLike[str]) -> int:
    """Write a folder that `from_pretrained` reads, weights in half precision; returns its size in bytes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    half = SamModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    size = {"longest_edge": IMAGE_SIZE}
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    low = IMAGE_SIZE // PATCH * 4
    images = SamImageProcessor(
        size=size, pad_size=side, mask_size={"longest_edge": low}, mask_pad_size={"height": low, "width": low},
        image_mean=list(MEAN), image_std=list(STD),
    )  # fmt: skip
    SamProcessor(images).save_pretrained(folder)
    images.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    return sum(file.stat().st_size for file in folder.iterdir())
