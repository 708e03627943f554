"""Floating-point operations of the detector and the segmenter, counted on their real modules, not on their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion.flops import count
from labeling.detectors import DetectorConfig
from labeling.loading import reading
from labeling.segmenters import SegmenterConfig


def detector_flops(config: DetectorConfig, height: int, width: int, captions: Sequence[int]) -> float:
    """Operations of one picture of height x width px through every caption, given by their tokens.

    Captions between the shortest and the longest are interpolated.

    Raises:
        InputError: the path holds no configurations that transformers reads.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForZeroShotObjectDetection

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("detector", config.path):
        settings = AutoConfig.from_pretrained(config.path, **options)
        images = AutoImageProcessor.from_pretrained(config.path, **options)
    # Which token sees which follows from the tokens' values, which the meta device has not: weights are drawn instead.
    model = AutoModelForZeroShotObjectDetection.from_config(settings).float().eval().requires_grad_(False)
    pixels = images(np.zeros((height, width, 3), np.uint8), return_tensors="pt")["pixel_values"]
    seen = torch.ones(1, *pixels.shape[2:], dtype=torch.long)

    def call(tokens: int) -> int:
        ids = torch.ones(1, tokens, dtype=torch.long)
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention is not counted
            return count(
                lambda: model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), pixel_mask=seen)
            )

    ends = sorted({min(captions), max(captions)})
    return float(np.interp(captions, ends, [call(tokens) for tokens in ends]).sum())


def segmenter_flops(config: SegmenterConfig, boxes: int) -> tuple[int, int]:
    """Operations of (one picture through the encoder, `boxes` boxes of it through the decoder).

    Raises:
        InputError: the path holds no configuration that transformers reads.
    """
    from transformers import AutoConfig, SamModel

    options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    with reading("segmenter", config.path):
        settings: Any = AutoConfig.from_pretrained(config.path, **options)
    with torch.device("meta"):
        model: Any = SamModel(settings).float().eval().requires_grad_(False)
    side = settings.vision_config.image_size
    encode = count(lambda: model.vision_encoder(torch.empty(1, 3, side, side, device="meta")))
    cells = side // settings.vision_config.patch_size
    embedding = torch.empty(1, settings.vision_config.output_channels, cells, cells, device="meta")
    prompts = torch.empty(1, max(1, boxes), 4, device="meta")
    decode = count(lambda: model(image_embeddings=embedding, input_boxes=prompts, multimask_output=False))
    return encode, decode
