"""What the autoencoder is trained for: values, outlines and colours, and a critic at the end."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

# Weight of the mean KL term per latent value: enough noise that the decoder forgives small errors
# of a denoiser, little enough that outlines stay sharp.
KL_WEIGHT = 5e-4
# Latents averaged over 2 x 2 cells shall decode to the picture at half size: this keeps noise out of their high
# frequencies, which a small denoiser could not learn (Skorokhodov et al. 2025, "Improving the diffusability of
# autoencoders"; the same idea as EQ-VAE, Kouzelis et al. 2025).
HALF_SIZE_WEIGHT = 0.25
CRITIC_WEIGHT = 0.1


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
