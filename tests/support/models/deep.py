"""Tiny pipelines with as many blocks as published models have, of random weights, in folders called as their hub ids.

In the folder that holds them a page's commands, which name hub ids, work as they stand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.support.models.dits import tiny_dit
from tests.support.models.sdxl import PUBLISHED, tiny_sdxl
from tests.support.models.tiny_pipeline import tiny_pipeline
from tests.support.system.running import ROOT

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "stabilityai/stable-diffusion-3.5-medium": ("sd3", {"num_layers": 24}),
    "black-forest-labs/FLUX.1-dev": ("flux", {"num_layers": 19, "num_single_layers": 38, "guidance_embeds": True}),
    "black-forest-labs/FLUX.2-klein-4B": ("flux2_klein", {"num_layers": 5, "num_single_layers": 20}),
    "lodestones/Chroma1-HD": ("chroma", {"num_layers": 19, "num_single_layers": 38}),
    "Qwen/Qwen-Image": ("qwen_image", {"num_layers": 60}),
    "Tongyi-MAI/Z-Image-Turbo": ("z_image", {"n_layers": 30}),
    "Alpha-VLLM/Lumina-Image-2.0": ("lumina2", {"num_layers": 26}),
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": ("pixart_sigma", {"num_layers": 28}),
    "Efficient-Large-Model/Sana_1600M_1024px_diffusers": ("sana", {"num_layers": 20}),
    "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers": ("hunyuan", {"num_layers": 40}),
}
"""By hub id: the family, and the published number of its blocks."""

UNETS = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0")
OTHERS = {
    "CompVis/stable-diffusion-v1-4": UNETS[0],
    "black-forest-labs/FLUX.1-schnell": "black-forest-labs/FLUX.1-dev",
}
"""Of which autoencoders are published, and the one of the same blocks."""
FINDERS = {"IDEA-Research/grounding-dino-tiny": "detector", "facebook/sam-vit-base": "segmenter"}
"""The embedded world's in the place of published ones."""


def write_named(hub_id: str, folder: Path) -> None:
    """A tiny pipeline of the kind of `hub_id` as ``folder/hub_id``, and the finders beside it."""
    for name, part in FINDERS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / "data" / "scenes" / "models" / part)
    like = OTHERS.get(hub_id, hub_id)
    if like in UNETS:
        pipe = _sd() if like == UNETS[0] else tiny_sdxl(PUBLISHED)
    else:
        family, depth = MODELS[like]
        depth = depth | ({"guidance_embeds": False} if hub_id.endswith("schnell") else {})
        pipe = tiny_dit(family)
        torch.manual_seed(1)
        pipe.transformer = type(pipe.transformer).from_config({**pipe.transformer.config, **depth})
        if hub_id.endswith("klein-4B"):
            pipe.register_to_config(is_distilled=True)
    pipe.save_pretrained(folder / hub_id)


def _sd() -> Any:
    """Stable Diffusion 1.x: four levels of two layers."""
    from diffusers import UNet2DConditionModel

    pipe = tiny_pipeline()
    torch.manual_seed(0)
    pipe.unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,) * 4, cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4
    )
    return pipe
