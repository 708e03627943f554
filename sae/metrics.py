"""How well an autoencoder reconstructs vectors that took no part in its training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import InputError
from sae.autoencoder import SparseAutoencoder

# Borders of the density histogram: shares of the vectors on which a feature fires.
DENSITIES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Metrics:
    """Reconstruction of `vectors` vectors; variances are over vectors, e = x − x̂.

    Attributes:
        vectors: how many were measured.
        explained_variance: mean over channels of 1 − Var(e_c) / Var(x_c), the paper's Table 1; at most 1.
        explained_total_variance: 1 − Σ_c Var(e_c) / Σ_c Var(x_c); channels count by their variance.
        scaled_mse: mean(e²) / mean((x − mean x)²), the mean taken per channel; 0 is perfect.
        cosine: mean cosine of x and x̂, in [−1, 1].
        l0: mean number of features a vector uses, in [0, k].
        dead_share: share of features that fired on none of the vectors, in [0, 1].
        density: features per class of density: never firing, then one class for each step of `DENSITIES`, its upper
            border included; sums to n. Empty where it was not measured.
        loss_recovered: see `loss_recovered`; None where no diffusion model was asked.
    """

    vectors: int
    explained_variance: float
    explained_total_variance: float
    scaled_mse: float
    cosine: float
    l0: float
    dead_share: float
    density: tuple[int, ...] = ()
    loss_recovered: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", tuple(self.density))

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self) | {"density": list(self.density)}


def loss_recovered(error: float, ablated: float, reconstructed: float) -> float:
    """How much of the harm of an ablation the reconstruction undoes: (L_ablated − L_sae) / (L_ablated − L).

    Args:
        error: L, the U-Net's noise-prediction error (mean square, in squared units of the noise) as it is.
        ablated: the same with the block's update replaced by zero, or by its mean.
        reconstructed: the same with the update replaced by the SAE's reconstruction.

    Returns:
        1 when the reconstruction costs nothing, 0 when it is as bad as the ablation; not bounded on either side.

    Raises:
        InputError: the ablation did no harm, so there is nothing to recover.
    """
    if not ablated > error:
        raise InputError(f"Ablating the block did no harm (error {error} before, {ablated} after).")
    return (ablated - reconstructed) / (ablated - error)


@torch.no_grad()
def evaluate(sae: SparseAutoencoder, batches: Iterable[Tensor]) -> Metrics:
    """Measure `sae` on batches [batch, d] in one pass; sums are kept in float64.

    Channels that never vary are left out of `explained_variance`, which they would make infinite.

    Raises:
        InputError: there are no vectors.
    """
    d, device = sae.config.d, sae.bias.device
    firings = torch.zeros(sae.config.n, dtype=torch.int64, device=device)
    x_sum, x_squares, e_sum, e_squares = torch.zeros(4, d, dtype=torch.float64, device=device)
    count, cosine, used = 0, 0.0, 0
    # Moments are taken about the first batch's means: about zero, a large mean would cancel the small
    # variance.
    x_origin = e_origin = None
    for batch in batches:
        x = batch.to(device=device, dtype=sae.bias.dtype)
        codes = sae.encode(x)
        x_hat = sae.decode(codes)
        error = (x - x_hat).double()
        if x_origin is None or e_origin is None:
            x_origin, e_origin = x.mean(dim=0), error.mean(dim=0)
        x_shifted, e_shifted = (x - x_origin).double(), error - e_origin
        x_sum += x_shifted.sum(dim=0)
        x_squares += x_shifted.square().sum(dim=0)
        e_sum += e_shifted.sum(dim=0)
        e_squares += e_shifted.square().sum(dim=0)
        cosine += float(F.cosine_similarity(x, x_hat, dim=1).double().sum())
        active = codes.values > 0
        used += int(active.sum())
        firings += torch.bincount(codes.indices[active], minlength=sae.config.n)
        count += len(x)
    if e_origin is None:
        raise InputError("There are no held-out vectors to measure the SAE on.")
    x_variance = (x_squares / count - (x_sum / count).square()).clamp_min_(0.0)
    e_variance = (e_squares / count - (e_sum / count).square()).clamp_min_(0.0)
    varying = x_variance > 0
    if not bool(varying.any()):
        raise InputError("The held-out vectors are all the same; there is no variance to explain.")
    return Metrics(
        vectors=count,
        explained_variance=float((1.0 - e_variance[varying] / x_variance[varying]).mean()),
        explained_total_variance=float(1.0 - e_variance.sum() / x_variance.sum()),
        scaled_mse=float((e_variance + (e_origin + e_sum / count).square()).sum() / x_variance.sum()),
        cosine=cosine / count,
        l0=used / count,
        dead_share=float((firings == 0).double().mean()),
        density=_density(firings, count),
    )


def _density(firings: Tensor, vectors: int) -> tuple[int, ...]:
    """Features per class of density from how often each fired, int64 [n]."""
    borders = torch.tensor(DENSITIES, dtype=torch.float64, device=firings.device)
    classes = torch.bucketize(firings.double() / vectors, borders)
    return tuple(torch.bincount(classes, minlength=len(DENSITIES)).tolist())
