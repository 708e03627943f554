"""The autoencoder, its critic, and the scale of its latents."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from torch import Tensor, nn


def build_autoencoder() -> AutoencoderKL:
    """A convolutional autoencoder: pictures [B, 3, 128, 128] to latents [B, 16, 16, 16]; 3.3 M parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def build_critic() -> nn.Module:
    """Pictures [B, 3, H, W] to one score for every overlapping patch of 22 pixels [B, 1, H / 4, W / 4]."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.GroupNorm(8, 64), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(64, 96, 3, padding=1), nn.GroupNorm(8, 96), nn.LeakyReLU(0.2), nn.Conv2d(96, 1, 3, padding=1)]
    return nn.Sequential(*layers)


@torch.no_grad()
def set_scale(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Centre and balance the latents, then set scaling_factor = 1 / std over all of them.

    Both are folded into the two 1 x 1 convolutions around the latents, so that the pipelines,
    which only know one scale, see latents of mean 0. Channels are moved half way (on a log scale)
    to equal spread: weak ones often carry colour and would drown in a denoiser's error.
    """
    latents = vae.encode(pixels).latent_dist.mean
    means, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)).sqrt()
    inner, outer = vae.quant_conv, vae.post_quant_conv
    channels = len(means)
    inner.bias[:channels] = (inner.bias[:channels] - means) / spread
    inner.weight[:channels] /= spread[:, None, None, None]
    inner.bias[channels:] -= 2 * spread.log()
    outer.bias += outer.weight[:, :, 0, 0] @ means
    outer.weight *= spread[None, :, None, None]
    latents = vae.encode(pixels).latent_dist.mean
    vae.register_to_config(scaling_factor=round(float(1 / latents.std()), 5))
    print(f"latents: scale {vae.config.scaling_factor}, means {latents.mean(dim=(0, 2, 3)).tolist()}")
    print(f"  std per channel {latents.std(dim=(0, 2, 3)).tolist()}", flush=True)


def encoder_digest(folder: Path) -> str:
    """A digest of all that latents depend on: the weights up to them and their scale, and not the decoder."""
    scale = json.loads((folder / "config.json").read_text(encoding="utf-8"))["scaling_factor"]
    digest = hashlib.sha256(json.dumps(scale).encode())
    with safe_open(folder / "diffusion_pytorch_model.safetensors", "numpy") as file:
        for name in sorted(file.keys()):
            if name.startswith(("encoder.", "quant_conv.")):
                digest.update(name.encode() + file.get_tensor(name).tobytes())
    return digest.hexdigest()
