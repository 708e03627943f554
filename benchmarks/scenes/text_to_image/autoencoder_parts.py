"""The parts of the autoencoder's training: the network, its critic, its losses, and its stream of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from gazetteer.data.scenes.render import render

# Weight of the mean KL term per latent value: enough noise that the decoder forgives small errors
# of a denoiser, little enough that outlines stay sharp.
KL_WEIGHT = 5e-4
# Latents averaged over 2 x 2 cells shall decode to the picture at half size: this keeps noise out of their high
# frequencies, which a small denoiser could not learn (Skorokhodov et al. 2025, "Improving the diffusability of
# autoencoders"; the same idea as EQ-VAE, Kouzelis et al. 2025).
HALF_SIZE_WEIGHT = 0.25
CRITIC_WEIGHT = 0.1


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


def normalise(pictures: Tensor) -> Tensor:
    """uint8 pictures to floats in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def picture_pool(seeds: Sequence[int], views: Sequence[str] = ()) -> Tensor:
    """Render the scenes of `seeds` as uint8 [N, 3, 128, 128]."""
    return torch.stack([torch.tensor(render(seed, views=views).image).permute(2, 0, 1) for seed in seeds])


class PictureStream:
    """A pool of rendered scenes in which every step replaces the oldest ones by new ones.

    At step s the pool holds the scenes [fresh s, fresh s + size) of `seeds`, so a resumed run has the same pool.
    """

    def __init__(self, seeds: range, views: Sequence[str], size: int, fresh: int, step: int = 0) -> None:
        self.seeds, self.views, self.fresh = seeds, views, fresh
        self.next = fresh * step
        self.pool = torch.empty(size, 3, 128, 128, dtype=torch.uint8)
        self._fill(size)

    def _fill(self, count: int) -> None:
        for number in range(self.next, self.next + count):
            scene = render(self.seeds[number % len(self.seeds)], views=self.views)
            self.pool[number % len(self.pool)] = torch.tensor(scene.image).permute(2, 0, 1)
        self.next += count

    def crops(self, count: int, side: int) -> Tensor:
        """Random crops uint8 [count, 3, side, side]; small ones buy more steps per minute."""
        rows = torch.randint(len(self.pool), (count,)).tolist()
        places = torch.randint(self.pool.shape[-1] - side + 1, (count, 2)).tolist()
        parts = [self.pool[i, :, y : y + side, x : x + side] for i, (y, x) in zip(rows, places, strict=True)]
        return torch.stack(parts)

    def advance(self) -> None:
        """Replace the oldest scenes by new ones."""
        self._fill(self.fresh)


def slopes(error: Tensor) -> Tensor:
    """Mean absolute difference between neighbours of an error [B, 3, H, W], at full, half and quarter size."""
    total = torch.zeros((), device=error.device)
    for scale in range(3):
        total = total + (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
        if scale < 2:
            error = nn.functional.avg_pool2d(error, 2)
    return total


def reconstruction_loss(
    vae: AutoencoderKL, probe: nn.Module, pixels: Tensor, half_size: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of the reconstruction, the mean KL per latent value, and the output [B, 3, H, W].

    The error counts values, their differences at three scales (which keep outlines sharp), the means of 8 x 8
    pixels, and how well a linear `probe` reads these means from the latents. Without the last a small encoder spends
    its channels on outlines and gives up telling red from green.
    """
    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.sample()
        output = vae.decode(latents).sample.float()
        small = vae.decode(nn.functional.avg_pool2d(latents, 2)).sample.float() if half_size else None
    error = output - pixels
    means = nn.functional.avg_pool2d(pixels, 8)
    coarse = nn.functional.avg_pool2d(error, 8).abs().mean()
    colours = (probe(posterior.mean.float()) - means).abs().mean()
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    loss = error.abs().mean() + error.square().mean() + slopes(error) + 2 * coarse + 2 * colours
    if small is not None:
        loss = loss + HALF_SIZE_WEIGHT * (small - nn.functional.avg_pool2d(pixels, 2)).abs().mean()
    return loss + KL_WEIGHT * kl, kl, output


def critic_term(vae: AutoencoderKL, critic: nn.Module, loss: Tensor, output: Tensor) -> Tensor:
    """How far the outputs fail the critic, weighted to a share CRITIC_WEIGHT of the loss's pull on the last layer."""
    score = -critic(output).mean()
    last = vae.decoder.conv_out.weight
    (pull,) = torch.autograd.grad(loss, last, retain_graph=True)
    (push,) = torch.autograd.grad(score, last, retain_graph=True)
    return CRITIC_WEIGHT * (pull.norm() / (push.norm() + 1e-6)).clamp(max=1e3).detach() * score


def critic_loss(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of the critic on real pictures and on reconstructions [B, 3, H, W]."""
    return (1 - critic(real)).relu().mean() + (1 + critic(made.detach())).relu().mean()


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, pictures: Tensor, batch: int = 16) -> Tensor:
    """uint8 pictures [N, 3, H, W] through the autoencoder, without noise."""
    device = next(vae.parameters()).device
    outputs = []
    for part in pictures.split(batch):
        pixels = normalise(part.to(device))
        with torch.autocast(device.type, torch.bfloat16):
            output = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.float()
        outputs.append(((output.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu())
    return torch.cat(outputs)


def absolute_error(made: Tensor, pictures: Tensor) -> float:
    """Mean absolute error of uint8 pictures, in steps of 255."""
    return float((made.float() - pictures.float()).abs().mean())


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
