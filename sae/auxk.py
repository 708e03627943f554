"""AuxK: dead features learn to explain what the live ones leave over, and so come back to life."""

from __future__ import annotations

import torch
from torch import Tensor

from sae.autoencoder import SparseAutoencoder


@torch.no_grad()
def auxk_gradients(
    sae: SparseAutoencoder, centred: Tensor, preactivations: Tensor, error: Tensor, dead: Tensor, k_aux: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """AuxK(e) = mean(‖e − ê‖²) / mean(‖e − ē‖²) (paper, appendix A; norm as in Gao et al.) and its gradient.

    ê = Σ a_i f_i over the k_aux strongest dead features, a = ReLU(W_enc (x − b)). The residual e is a
    constant here: AuxK may not make the live reconstruction worse to look better itself. ê has no bias of
    its own, so b is reached through the encoder alone; ē is the batch mean of e. The encoder does receive
    its gradient, without which a dead feature could turn but never fire.

    Everything runs on the dead rows only, densely: their number falls as they revive, and a dense product
    of [batch, dead] is faster than a sparse one until dead features outnumber k_aux many times.

    Args:
        centred: x − b, [batch, d].
        preactivations: W_enc (x − b), [batch, n].
        error: e = x − x̂, [batch, d].
        dead: [dead] int64 features, at least one.
        k_aux: dead features allowed per vector.

    Returns:
        AuxK (scalar) and its gradients by encoder[dead] [dead, d], decoder[dead] [dead, d] and bias [d].
        All zero when the residual is constant over the batch.
    """
    encoder, decoder = sae.encoder[dead], sae.decoder[dead]
    activations = _keep_largest(preactivations[:, dead], k_aux).relu_()
    missing = error - activations @ decoder
    spread = (error - error.mean(dim=0)).square().mean()
    if not float(spread) > 0.0:
        return (
            error.new_zeros(()),
            torch.zeros_like(encoder),
            torch.zeros_like(decoder),
            torch.zeros_like(sae.bias),
        )
    upstream = missing * (-2.0 / (missing.numel() * float(spread)))
    by_decoder = activations.T @ upstream
    by_activation = (upstream @ decoder.T).masked_fill_(activations == 0, 0.0)
    by_bias = -(by_activation.sum(dim=0) @ encoder)
    return missing.square().mean() / spread, by_activation.T @ centred, by_decoder, by_bias


def _keep_largest(values: Tensor, k: int) -> Tensor:
    """Zero all but the k largest entries of each row of [batch, m]; all stay when k >= m."""
    if values.shape[1] <= k:
        return values
    kept = values.topk(k, dim=1, sorted=False)
    return torch.zeros_like(values).scatter_(1, kept.indices, kept.values)
