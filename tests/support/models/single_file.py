"""A Stable Diffusion pipeline as one file, under the weight names of the original code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def unet_name(name: str, layers: int) -> str:
    """layers: `layers_per_block` of the U-Net."""
    ends = {
        "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
        "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
    }  # fmt: skip
    for old, new in ends.items():
        if name.startswith(old):
            return name.replace(old, new, 1)
    side, *numbers, rest = re.fullmatch(r"(down_blocks|up_blocks|mid_block)(?:\.(\d+))?\.(.*)", name).groups()  # type: ignore[union-attr]
    block = int(numbers[0] or 0)
    kind, number, rest = rest.split(".", 2)
    layer = int(number)
    if kind == "resnets":
        part, rest = rest.split(".", 1)
        rest = f"{RESNET[part]}.{rest}"
    if side == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * layer}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if side == "down_blocks":
        return f"input_blocks.{1 + block * (layers + 1) + layer}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.UPSAMPLER.{rest}"
    return f"output_blocks.{block * (layers + 1) + layer}.{int(kind == 'attentions')}.{rest}"


def vae_name(name: str, levels: int) -> str:
    """levels: resolutions of the VAE; the original counts those of the decoder from the finest."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)


def write_single_file(pipe: Any, path: Path) -> Path:
    """All weights of a pipeline in one file. The VAE's attention is not translated: it must have none."""
    state: dict[str, torch.Tensor] = {}
    unet = {unet_name(n, pipe.unet.config.layers_per_block): t for n, t in pipe.unet.state_dict().items()}
    for name, tensor in unet.items():
        # the upsampler comes behind the attention where its block has one
        behind = 2 if any(other.startswith(name.split(".UPSAMPLER")[0] + ".1.") for other in unet) else 1
        state["model.diffusion_model." + name.replace("UPSAMPLER", str(behind))] = tensor
    levels = len(pipe.vae.config.block_out_channels)
    state |= {f"first_stage_model.{vae_name(n, levels)}": t for n, t in pipe.vae.state_dict().items()}
    for name, tensor in pipe.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    return path
