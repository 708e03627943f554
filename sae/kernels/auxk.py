"""AuxK: dead features learn to explain what the live ones leave over, and so come back to life."""

from __future__ import annotations

import torch
from torch import Tensor

from gazetteer.sae.kernels.sparse import Pairs
from gazetteer.sae.model.autoencoder import Codes, SparseAutoencoder
from gazetteer.sae.model.chunks import ROWS, mean_square

# From so many dead features for each that a vector may use, sums over those used are cheaper than dense products.
SPARSE_FROM = 5


@torch.no_grad()
def auxk_gradients(
    sae: SparseAutoencoder, centred: Tensor, preactivations: Tensor | None, error: Tensor, dead: Tensor, k_aux: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """AuxK(e) = mean(‖e − ê‖²) / mean(‖e − ē‖²) (paper, appendix A; norm as in Gao et al.) and its gradient.

    ê = Σ a_i f_i over the k_aux strongest dead features, a = ReLU(W_enc (x − b)). The residual e is a
    constant here: AuxK may not make the live reconstruction worse to look better itself. ê has no bias of
    its own, so b is reached through the encoder alone; ē is the batch mean of e. The encoder does receive
    its gradient, without which a dead feature could turn but never fire.

    Everything runs on the dead rows only, a thousand vectors at a time: as dense products of [vectors, dead] while
    dead features are few, as sums over the features used once they outnumber k_aux several times.

    Args:
        centred: x − b, [batch, d].
        preactivations: of the dead features, W_enc[dead] (x − b), [batch, dead]; None when they are not known yet.
        error: e = x − x̂, [batch, d].
        dead: [dead] int64 features, at least one.
        k_aux: dead features allowed per vector.

    Returns:
        AuxK (scalar) and its gradients by encoder[dead] [dead, d], decoder[dead] [dead, d] and bias [d].
        All zero when the residual is constant over the batch.
    """
    encoder, decoder = sae.encoder[dead], sae.decoder[dead]
    by_encoder, by_decoder = torch.zeros_like(encoder), torch.zeros_like(decoder)
    by_preactivation = encoder.new_zeros(len(dead))
    # A variance from sums would cancel where the mean is large; this one costs a pass. It stays on the device.
    spread = mean_square(error, error.mean(dim=0))
    share = torch.where(spread > 0, 1.0 / (error.numel() * spread), 0.0)
    scale = -2.0 * share
    form = _sparse if len(dead) >= SPARSE_FROM * k_aux else _dense
    squares = []
    for start in range(0, len(error), ROWS):
        rows = slice(start, start + ROWS)
        reached = centred[rows] @ encoder.T if preactivations is None else preactivations[rows]
        missing, *parts = form(reached, k_aux, centred[rows], error[rows], encoder, decoder, scale)
        squares.append(missing.square_().sum())
        for total, part in zip((by_encoder, by_decoder, by_preactivation), parts, strict=True):
            total += part
    by_bias = torch.mv(encoder.T, by_preactivation).neg_()
    return torch.stack(squares).sum() * share, by_encoder, by_decoder, by_bias


def _dense(
    preactivations: Tensor, k_aux: int, centred: Tensor, error: Tensor, encoder: Tensor, decoder: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """e − ê [batch, d], the gradients by the dead encoder and decoder rows, and by the preactivations summed [dead]."""
    activations = _keep_largest(preactivations, k_aux).relu_()
    missing = error - activations @ decoder
    upstream = missing * scale
    by_activation = (upstream @ decoder.T).masked_fill_(activations == 0, 0.0)
    return missing, by_activation.T @ centred, activations.T @ upstream, by_activation.sum(dim=0)


def _sparse(
    preactivations: Tensor, k_aux: int, centred: Tensor, error: Tensor, encoder: Tensor, decoder: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_dense`, over the pairs in use."""
    largest = preactivations.topk(k_aux, dim=1, sorted=False)
    pairs = Pairs(Codes(largest.values.relu_(), largest.indices), 0, len(decoder))
    missing = error - pairs.rows(decoder)
    upstream = missing * scale
    per_pair = pairs.dots(upstream, decoder)
    by_decoder = pairs.transposed(pairs.values, upstream)
    return missing, pairs.transposed(per_pair, centred), by_decoder, pairs.per_feature(per_pair)


def _keep_largest(values: Tensor, k: int) -> Tensor:
    """A copy of [batch, m] with all but the k largest entries of each row at zero; all stay when k >= m."""
    if values.shape[1] <= k:
        return values.clone()
    largest = values.topk(k, dim=1, sorted=False)
    return torch.zeros_like(values).scatter_(1, largest.indices, largest.values)
