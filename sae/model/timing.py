"""What the timestep does to a time-conditioned autoencoder: FiLM of what it reads (DifFRACT, arXiv 2606.15796)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONGEST_PERIOD = 10_000.0


class TimeModulation(nn.Module):
    """x ⊙ (1 + s(t)) + h(t): two layers with SiLU over a sinusoidal embedding of t, and a linear head for s and h."""

    def __init__(self, width: int, d: int, device: torch.device | str, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, device=device, dtype=dtype)
        self.second = nn.Linear(width, width, device=device, dtype=dtype)
        self.head = nn.Linear(width, 2 * d, device=device, dtype=dtype)

    @torch.no_grad()
    def at(self, timestep: float) -> tuple[Tensor, Tensor]:
        """1 + s and h at a time, [d] each."""
        weight = self.head.weight
        angles = embedding(timestep, self.first.in_features, weight.device).to(weight.dtype)
        scale, shift = self.head(F.silu(self.second(F.silu(self.first(angles))))).chunk(2)
        return 1.0 + scale, shift


def embedding(timestep: float, width: int, device: torch.device | str = "cpu") -> Tensor:
    """sin(t ω_j), then cos(t ω_j), ω_j = 10000^(−j / (width/2 − 1)), as by diffusers' defaults: float32 [width]."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=device)
    angles = timestep * torch.exp(-math.log(LONGEST_PERIOD) * steps / max(half - 1, 1))
    return torch.cat([angles.sin(), angles.cos()])
