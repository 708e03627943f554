"""The training loss and its gradients, written out: sparse where the code is sparse, with no autograd graph.

Automatic differentiation would send a dense [batch, n] gradient back through TopK to reach the encoder.
Only batch·k of those entries are not zero, so every product below runs over these alone. The tests hold the
result against automatic differentiation of the dense formulas.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.autoencoder import Codes, SparseAutoencoder, top_codes, weighted_rows
from sae.auxk import auxk_gradients


class Gradients(NamedTuple):
    """d loss / d parameter: encoder [n, d], decoder [n, d], bias [d]."""

    encoder: Tensor
    decoder: Tensor
    bias: Tensor


class Step(NamedTuple):
    """One evaluation of the loss.

    Attributes:
        loss: scalar, scaled MSE + alpha · AuxK.
        mse: scalar, scaled MSE.
        auxk: scalar, AuxK before it is multiplied by alpha (0 when no feature is dead).
        codes: of the batch, what fired.
        gradients: of `loss`.
    """

    loss: Tensor
    mse: Tensor
    auxk: Tensor
    codes: Codes
    gradients: Gradients


@torch.no_grad()
def loss_and_gradients(
    sae: SparseAutoencoder, x: Tensor, mse_scale: float, dead: Tensor | None, k_aux: int, alpha: float
) -> Step:
    """The paper's loss (appendix A) on one batch and its exact gradient.

    L = s · mean(‖x − x̂‖² / d) + α · AuxK(e),  e = x − x̂,  x̂ = W_dec TopK(ReLU(W_enc (x − b))) + b

    with s = `mse_scale` = 1 / mean((x − mean x)²) and AuxK as in `sae.auxk`.

    Args:
        x: [batch, d].
        dead: [dead] int64, the features AuxK revives; None or empty turns AuxK off.
        k_aux: dead features that may explain the residual of one vector.
        alpha: weight of AuxK.
    """
    centred = x - sae.bias
    preactivations = centred @ sae.encoder.T
    codes = top_codes(preactivations, sae.config.k)
    error = centred - weighted_rows(sae.decoder, codes.indices, codes.values)
    mse = mse_scale * error.square().mean()

    gradients = _reconstruction_gradients(sae, centred, codes, error * (-2.0 * mse_scale / error.numel()))
    auxk = torch.zeros_like(mse)
    if dead is not None and len(dead) > 0 and alpha > 0:
        auxk, encoder, decoder, bias = auxk_gradients(sae, centred, preactivations, error, dead, k_aux)
        gradients.encoder.index_add_(0, dead, encoder, alpha=alpha)
        gradients.decoder.index_add_(0, dead, decoder, alpha=alpha)
        gradients.bias.add_(bias, alpha=alpha)
    return Step(mse + alpha * auxk, mse, auxk, codes, gradients)


def _reconstruction_gradients(sae: SparseAutoencoder, centred: Tensor, codes: Codes, upstream: Tensor) -> Gradients:
    """Back from `upstream` = dL/dx̂ [batch, d] to the parameters.

    With G = dL/dx̂, Z the codes and A = [Z > 0] ⊙ (G W_dec), both [batch, n] and sparse:
    dW_decᵀ = Zᵀ G,  dW_enc = Aᵀ (x − b),  db = Σ_batch (G − A W_enc).
    """
    per_code = _code_gradients(sae.decoder, codes, upstream)
    order = _ByFeature(codes, sae.config.n)
    decoder = order.transposed_product(codes.values, upstream)
    encoder = order.transposed_product(per_code, centred)
    per_feature = torch.zeros(sae.config.n, dtype=centred.dtype, device=centred.device)
    per_feature.index_add_(0, codes.indices.reshape(-1), per_code.reshape(-1))
    return Gradients(encoder, decoder, upstream.sum(dim=0) - per_feature @ sae.encoder)


def _code_gradients(decoder: Tensor, codes: Codes, upstream: Tensor) -> Tensor:
    """dL/dz at the codes in use: upstream[r] · f_{indices[r, j]}, 0 in unused slots; [batch, k]."""
    # embedding_bag's derivative by its weights is exactly these batch·k inner products, in one native kernel.
    with torch.enable_grad():
        weights = codes.values.detach().requires_grad_()
        output = weighted_rows(decoder.detach(), codes.indices, weights)
        (gradient,) = torch.autograd.grad(output, weights, upstream)
    return gradient.masked_fill_(codes.values == 0, 0.0)


class _ByFeature:
    """The (vector, feature) pairs of a batch of codes, sorted by feature: Zᵀ G sums over runs of rows."""

    def __init__(self, codes: Codes, n: int) -> None:
        features = codes.indices.reshape(-1)
        # A narrower key sorts in fewer passes; the sort is stable, so a run lists its vectors in order.
        self._order = features.to(torch.int32).sort(stable=True).indices
        self._vectors = self._order.div(codes.indices.shape[1], rounding_mode="floor")
        counts = torch.bincount(features, minlength=n)
        self._offsets = F.pad(counts.cumsum(0), (1, 0))

    def transposed_product(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Mᵀ rows, [n, d]: M [batch, n] holds `weights` [batch, k] at the pairs, rows is [batch, d]."""
        return F.embedding_bag(
            self._vectors,
            rows,
            self._offsets,
            per_sample_weights=weights.reshape(-1)[self._order],
            mode="sum",
            include_last_offset=True,
        )
