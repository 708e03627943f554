"""How well an autoencoder reconstructs vectors that took no part in its training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.sae.model.autoencoder import SparseAutoencoder

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
        loss_recovered: see `loss_recovered`, against the ablation that puts zero in place of the update; None where
            no diffusion model was asked, or where that ablation does no harm.
        loss_recovered_mean: the same against the ablation that puts the mean held-out update in its place.
        noise_error, noise_error_sae, noise_error_zero, noise_error_mean: mean squares of what the denoiser predicts
            wrongly on held-out pictures, noise or (flow matching) velocity: as it is, with the update or output
            replaced by the SAE's reconstruction, by zero, by the mean; in squared units of what is predicted.
        noise_pictures: on how many pictures those were measured.
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
    loss_recovered_mean: float | None = None
    noise_error: float | None = None
    noise_error_sae: float | None = None
    noise_error_zero: float | None = None
    noise_error_mean: float | None = None
    noise_pictures: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", tuple(self.density))

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self) | {"density": list(self.density)}


def loss_recovered(error: float, ablated: float, reconstructed: float) -> float:
    """How much of the harm of an ablation the reconstruction undoes: (L_ablated − L_sae) / (L_ablated − L).

    Args:
        error: L, the denoiser's prediction error (mean square, in squared units of what is predicted) as it is.
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


def evaluate(sae: SparseAutoencoder, batches: Iterable[Tensor]) -> Metrics:
    """Measure `sae` on batches [batch, d] in one pass.

    Raises:
        InputError: there are no vectors, or they are all the same.
    """
    evaluation = MetricSums(sae)
    for batch in batches:
        evaluation.add(batch)
    return evaluation.metrics()


class MetricSums:
    """The sums behind `Metrics`, which grow with every batch; kept in float64.

    Channels that never vary are left out of `explained_variance`, which they would make infinite.
    """

    def __init__(self, sae: SparseAutoencoder) -> None:
        """No vectors so far."""
        self.sae = sae
        device, d = sae.bias.device, sae.config.d
        self._firings = torch.zeros(sae.config.n, dtype=torch.int64, device=device)
        # Sums of x and x², e and e² about the origins below.
        self._x, self._xx, self._e, self._ee = torch.zeros(4, d, dtype=torch.float64, device=device)
        self._count, self._cosine, self._used = 0, 0.0, 0
        # Moments are taken about the first batch's means: about zero, a large mean would cancel the small
        # variance.
        self._origins: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def add(self, batch: Tensor) -> None:
        """Count vectors [batch, d] in."""
        sae = self.sae
        x = batch.to(device=sae.bias.device, dtype=sae.bias.dtype)
        codes = sae.encode(x)
        x_hat = sae.restored(sae.decode(codes), x)
        error = (x - x_hat).double()
        if self._origins is None:
            self._origins = x.mean(dim=0), error.mean(dim=0)
        x_shifted, e_shifted = (x - self._origins[0]).double(), error - self._origins[1]
        self._x += x_shifted.sum(dim=0)
        self._xx += x_shifted.square().sum(dim=0)
        self._e += e_shifted.sum(dim=0)
        self._ee += e_shifted.square().sum(dim=0)
        self._cosine += float(F.cosine_similarity(x, x_hat, dim=1).double().sum())
        active = codes.values > 0
        self._used += int(active.sum())
        self._firings += torch.bincount(codes.indices[active], minlength=sae.config.n)
        self._count += len(x)

    def mean(self) -> Tensor:
        """The mean vector [d], float64; raises as `metrics`."""
        return self._some()[0].double() + self._x / self._count

    def metrics(self) -> Metrics:
        """What the vectors so far come to.

        Raises:
            InputError: there are none, or they are all the same.
        """
        _, e_origin = self._some()
        count = self._count
        x_variance = (self._xx / count - (self._x / count).square()).clamp_min_(0.0)
        e_variance = (self._ee / count - (self._e / count).square()).clamp_min_(0.0)
        varying = x_variance > 0
        if not bool(varying.any()):
            raise InputError("The held-out vectors are all the same; there is no variance to explain.")
        return Metrics(
            vectors=count,
            explained_variance=float((1.0 - e_variance[varying] / x_variance[varying]).mean()),
            explained_total_variance=float(1.0 - e_variance.sum() / x_variance.sum()),
            scaled_mse=float((e_variance + (e_origin + self._e / count).square()).sum() / x_variance.sum()),
            cosine=self._cosine / count,
            l0=self._used / count,
            dead_share=float((self._firings == 0).double().mean()),
            density=_density(self._firings, count),
        )

    def _some(self) -> tuple[Tensor, Tensor]:
        if self._origins is None:
            raise InputError("There are no held-out vectors to measure the SAE on.")
        return self._origins


def _density(firings: Tensor, vectors: int) -> tuple[int, ...]:
    """Features per class of density from how often each fired, int64 [n]."""
    borders = torch.tensor(DENSITIES, dtype=torch.float64, device=firings.device)
    classes = torch.bucketize(firings.double() / vectors, borders)
    return tuple(torch.bincount(classes, minlength=len(DENSITIES)).tolist())
