"""Train the small autoencoder (f = 8, 12 channels) that the text-to-image model works in.

python -m benchmarks.scenes.text_to_image.vae --out build/train/vae --minutes 15
python -m benchmarks.scenes.text_to_image.vae --out build/train/vae_sharp --start build/train/vae \\
    --decoder-only --minutes 10

The second run leaves the latents as they are, so a denoiser trained on them stays valid. A killed run continues with
`--resume` from its last checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from benchmarks.scenes.loop import Budget, Resumable, cosine_rate, save_sheet, set_rate, to_pictures
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.world import EVAL_SEEDS, TRAIN_SEEDS

# Weight of the mean KL term per latent value: enough noise that the decoder forgives small errors
# of a denoiser, little enough that outlines stay sharp.
KL_WEIGHT = 1e-3
BATCH, CROP = 8, 64
PEAK_RATE = 2e-3


def build_vae() -> AutoencoderKL:
    """A convolutional autoencoder: pictures [B, 3, 128, 128] to latents [B, 12, 16, 16]."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=12,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def picture_pool(seeds: range) -> Tensor:
    """Render the scenes of `seeds` as uint8 [N, 3, H, W]."""
    return torch.stack([torch.tensor(render(seed).image).permute(2, 0, 1) for seed in seeds])


def normalise(pictures: Tensor) -> Tensor:
    """uint8 pictures to floats in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def loss_terms(vae: AutoencoderKL, probe: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstruction error and KL.

    The error counts values, their differences (which keep outlines sharp), the means of 8 x 8
    pixels, and how well a linear `probe` reads these means from the latents. Without the last a
    small encoder spends its channels on outlines and gives up telling red from green.
    """
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        output = vae.decode(posterior.sample()).sample
    error = output.float() - pixels
    slopes = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    means = nn.functional.avg_pool2d(pixels, 8)
    coarse = nn.functional.avg_pool2d(error, 8).abs().mean()
    colours = (probe(posterior.mean.float()) - means).abs().mean()
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return error.abs().mean() + error.square().mean() + slopes + 2 * coarse + 2 * colours, kl


def crops(pictures: Tensor, batch: int, side: int) -> Tensor:
    """Random crops [batch, 3, side, side] in [-1, 1]; small ones buy more steps per minute."""
    rows = torch.randint(len(pictures), (batch,)).tolist()
    places = torch.randint(pictures.shape[-1] - side + 1, (batch, 2)).tolist()
    parts = [
        pictures[row, :, top : top + side, left : left + side] for row, (top, left) in zip(rows, places, strict=True)
    ]
    return normalise(torch.stack(parts))


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


def freeze_latents(vae: AutoencoderKL) -> None:
    """Train only what turns latents into pictures."""
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)


def train(
    out: Path, budget: Budget, pool: int, seed: int, start: Path | None, decoder_only: bool, resume: bool = False,
    every: int = 100,
) -> None:  # fmt: skip
    """Train (on from `start`), report the error on unseen scenes, save a folder to `out`.

    Args:
        resume: go on from the checkpoint in `out`, if there is one.
        every: steps between checkpoints.
    """
    torch.manual_seed(seed)
    pictures = picture_pool(TRAIN_SEEDS[-pool:])
    held_out = normalise(picture_pool(EVAL_SEEDS[:32]))
    vae = AutoencoderKL.from_pretrained(start).train() if start else build_vae()
    if decoder_only:
        freeze_latents(vae)
    probe = nn.Conv2d(vae.config.latent_channels, 3, 1)
    parameters = [*vae.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    run = Resumable(out / "checkpoint.pt", (vae, probe), optimizer, budget, every)
    run.start(resume)
    while budget.fraction < 1:
        set_rate(optimizer, cosine_rate(PEAK_RATE, budget, warmup=50))
        error, kl = loss_terms(vae, probe, crops(pictures, BATCH, CROP))
        (error + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        run.tick()
        if budget.step % 50 == 0:
            print(f"step {budget.step} {budget.seconds:.0f}s error {error:.4f} kl {kl:.2f}", flush=True)
    vae.eval()
    if not decoder_only:
        set_scale(vae, normalise(pictures[:256]))
    with torch.no_grad():
        decoded = vae.decode(vae.encode(held_out).latent_dist.mean).sample
    print(f"unseen scenes: PSNR {10 * torch.log10(4 / (decoded - held_out).square().mean()):.1f} dB")
    both = torch.stack([held_out[:18], decoded[:18]], dim=1).flatten(0, 1)
    save_sheet(to_pictures(both), out / "reconstructions.png")
    vae.save_pretrained(out)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="continue from this folder")
    parser.add_argument("--decoder-only", action="store_true", help="keep the latents as they are")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pool", type=int, default=3000, help="scenes to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    budget = Budget(options.minutes, options.steps)
    train(options.out, budget, options.pool, options.seed, options.start, options.decoder_only, options.resume)


if __name__ == "__main__":
    main()
