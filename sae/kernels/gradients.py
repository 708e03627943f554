"""The training loss and its gradients, written out: sparse where the code is sparse, with no autograd graph.

Automatic differentiation would send a dense [batch, n] gradient back through TopK to reach the encoder.
Only batch·k of those entries are not zero, so every product below runs over these alone. The tests hold the
result against automatic differentiation of the dense formulas.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from gazetteer.sae.kernels.auxk import auxk_gradients
from gazetteer.sae.kernels.candidates import candidate_codes, plain_codes
from gazetteer.sae.kernels.sparse import Pairs
from gazetteer.sae.model.autoencoder import Codes, SparseAutoencoder
from gazetteer.sae.model.chunks import mean_square


class Gradients(NamedTuple):
    """d loss / d parameter: encoder [n, d], decoder [n, d], bias [d]."""

    encoder: Tensor
    decoder: Tensor
    bias: Tensor


class Step(NamedTuple):
    """One evaluation of the loss.

    Attributes:
        loss: scalar, scaled MSE + alpha · AuxK.
        mse: scalar, scaled MSE; with prefixes, the mean over them.
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
    sae: SparseAutoencoder,
    x: Tensor,
    mse_scale: float,
    dead: Tensor | None,
    k_aux: int,
    alpha: float,
    candidates: bool = False,
) -> Step:
    """The paper's loss (appendix A) on one batch and its exact gradient.

    L = s · mean(‖x − x̂‖² / d) + α · AuxK(e),  e = x − x̂,  x̂ = W_dec TopK(ReLU(W_enc (x − b))) + b

    with s = `mse_scale` = 1 / mean((x − mean x)²) and AuxK as in `gazetteer.sae.kernels.auxk`. With Matryoshka prefixes
    m_1 < … < m_p = n the first term is the mean over j of the same loss of x̂_j, which uses the features below
    m_j alone; AuxK still takes the residual of the whole dictionary.

    Args:
        x: [batch, d].
        dead: [dead] int64, the features AuxK revives; None or empty turns AuxK off.
        k_aux: dead features that may explain the residual of one vector.
        alpha: weight of AuxK.
        candidates: find the codes as `sae.kernels.candidates` does, without a full-precision product with every
        feature.
    """
    centred = x - sae.bias
    if dead is None or not alpha > 0:
        dead = x.new_empty(0, dtype=torch.int64)
    codes, reached = (candidate_codes(sae, centred), None) if candidates else plain_codes(sae, centred, dead)
    codes = sae.strongest_of_batch(codes)
    borders = [0, *(sae.config.prefixes or (sae.config.n,))]
    groups = [Pairs(codes, low, high) for low, high in pairwise(borders)]

    # The residual of each prefix is that of the one before it, less what the features in between add.
    residuals, error = [], centred
    for group, (low, high) in zip(groups, pairwise(borders), strict=True):
        reconstruction = group.rows(sae.decoder[low:high])
        error = torch.sub(error, reconstruction, out=reconstruction)
        residuals.append(error)
    mse = mse_scale * torch.stack([mean_square(residual) for residual in residuals]).mean()

    scale = -2.0 * mse_scale / (error.numel() * len(groups))
    auxk, by_auxk = torch.zeros_like(mse), None
    if len(dead) > 0:  # before the gradients of the reconstruction take up their room
        auxk, *by_auxk = auxk_gradients(sae, centred, reached, error, dead, k_aux)
        del reached
    gradients = _reconstruction_gradients(sae, centred, groups, borders, residuals, scale)
    if by_auxk is not None:
        encoder, decoder, bias = by_auxk
        gradients.encoder.index_add_(0, dead, encoder, alpha=alpha)
        gradients.decoder.index_add_(0, dead, decoder, alpha=alpha)
        gradients.bias.add_(bias, alpha=alpha)
    return Step(mse + alpha * auxk, mse, auxk, codes, gradients)


def _reconstruction_gradients(
    sae: SparseAutoencoder,
    centred: Tensor,
    groups: list[Pairs],
    borders: list[int],
    residuals: list[Tensor],
    scale: float,
) -> Gradients:
    """Back from the residuals e_j [batch, d] of the prefixes to the parameters.

    A feature of group g takes part in the prefixes g, g + 1, …, so what reaches it is U_g = scale · Σ_{j ≥ g} e_j.
    With Z_g the group's codes and A_g = [Z_g > 0] ⊙ (U_g W_dec), both sparse:
    dW_dec,gᵀ = Z_gᵀ U_g,  dW_enc,g = A_gᵀ (x − b),  db = Σ_batch (U_1 − A W_enc).
    """
    encoder, decoder = [], []
    upstream: Tensor | None = None  # U_g / scale, which for a single group is its residual as it stands
    by_bias = torch.zeros_like(sae.bias)
    for group, (low, high), residual in reversed(list(zip(groups, pairwise(borders), residuals, strict=True))):
        upstream = residual if upstream is None else upstream + residual
        per_pair = group.dots(upstream, sae.decoder[low:high]) * scale
        decoder.append(group.transposed(group.values * scale, upstream))
        encoder.append(group.transposed(per_pair, centred))
        by_bias -= group.per_feature(per_pair) @ sae.encoder[low:high]
    if upstream is not None:
        by_bias.add_(upstream.sum(dim=0), alpha=scale)
    return Gradients(_joined(encoder), _joined(decoder), by_bias)


def _joined(reversed_parts: list[Tensor]) -> Tensor:
    """The parts [rows, d] in their own order, in one tensor; a single part is not copied."""
    return reversed_parts[0] if len(reversed_parts) == 1 else torch.cat(reversed_parts[::-1])
