"""The same codes for less work: a coarse product in bfloat16 proposes features, full precision decides.

Only the few features that lead the coarse ranking are scored in full precision. A bound on the coarse error tells
for every vector whether a feature that was not proposed could still belong to its k strongest; where it could, that
vector goes through the full product. The result is therefore that of `SparseAutoencoder.encode` up to the rounding
of its own precision, whatever the data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gazetteer.sae.kernels.sparse import Pairs
from gazetteer.sae.model.autoencoder import Codes, SparseAutoencoder, stacked, top_codes
from gazetteer.sae.model.chunks import CACHED, ROWS

# bfloat16 keeps 8 significant bits: rounding to nearest is off by at most this share.
ROUNDING = 2.0**-8
# Entries of the encoder from which the full product costs more than proposing and scoring again.
LARGE = 2**20


@torch.no_grad()
def encode_by_candidates(sae: SparseAutoencoder, x: Tensor) -> Codes:
    """`SparseAutoencoder.encode` for x [batch, d], equal up to float32 rounding; raises as it does."""
    sae.expect_vectors(x)
    return sae.above_threshold(candidate_codes(sae, x - sae.bias))


@torch.no_grad()
def candidate_codes(sae: SparseAutoencoder, centred: Tensor) -> Codes:
    """The strongest features of x − b [batch, d], `SAEConfig.slots` a vector, before any rule of the batch.

    Where bfloat16 products gain nothing (float64, no native support, GPUs, whose sums may be kept in bfloat16 too)
    or cannot help (a latent bias, a small dictionary) this is the plain product and selection.
    """
    first, second = _proposals(sae.config.slots)
    helps = first < sae.config.n and sae.latent_bias is None
    if not helps or centred.dtype != torch.float32 or not _is_fast(centred.device):
        return plain_codes(sae, centred)[0]
    coarse_w = sae.encoder.bfloat16()
    w_norm, w_error = _norms(sae.encoder, coarse_w)
    bounds = w_norm.max(), w_error.max()
    parts = []
    for rows in centred.split(ROWS):
        coarse_x = rows.bfloat16()
        scores, slack = coarse_x @ coarse_w.T, _slack(rows, coarse_x, *bounds)
        codes, open_rows = _of_proposed(sae, rows, scores, slack, first)
        if len(open_rows) > 0 and second < sae.config.n:
            again, still = _of_proposed(sae, rows[open_rows], scores[open_rows], slack[open_rows], second)
            codes, open_rows = _replaced(codes, open_rows, again), open_rows[still]
        if len(open_rows) > 0:
            codes = _replaced(codes, open_rows, plain_codes(sae, rows[open_rows])[0])
        parts.append(codes)
    return stacked(parts)


def _proposals(slots: int) -> tuple[int, int]:
    """How many features the coarse ranking proposes for a vector, and for one that those did not settle.

    Few settle nearly every vector, and the rest cost little when asked again: together the fewest scores.
    """
    return slots + 10, 4 * slots + 32


def _of_proposed(
    sae: SparseAutoencoder, centred: Tensor, scores: Tensor, slack: Tensor, proposed: int
) -> tuple[Codes, Tensor]:
    """The codes of x − b [rows, d] among the leaders of the coarse `scores` [rows, n].

    Args:
        slack: [rows], of `_slack`.

    Returns:
        the codes, and the rows [open] int64 of which a feature that was not proposed may belong to them.
    """
    slots = sae.config.slots
    coarse = scores.topk(proposed, dim=1)
    # Ascending features, so that the stable sort below leaves equal values in ascending feature order.
    indices = coarse.indices.sort(dim=1).values
    values, order = _scores(sae.encoder, indices, centred).sort(dim=1, descending=True, stable=True)
    values, indices = values[:, :slots].relu(), indices.gather(1, order[:, :slots])
    codes = Codes(values, indices.masked_fill(values == 0, 0))

    weakest = coarse.values[:, -1].float()
    weakest += ROUNDING * weakest.abs()  # the coarse score itself was rounded to bfloat16
    others = weakest + slack  # no feature left out scores more
    certain = (values[:, -1] > others) | (others < 0)
    return codes, (~certain).nonzero().squeeze(1)


def _replaced(codes: Codes, rows: Tensor, others: Codes) -> Codes:
    """`codes` with those of some rows [rows] int64 replaced."""
    return Codes(codes.values.index_copy(0, rows, others.values), codes.indices.index_copy(0, rows, others.indices))


@torch.no_grad()
def plain_codes(sae: SparseAutoencoder, centred: Tensor, columns: Tensor | None = None) -> tuple[Codes, Tensor]:
    """`candidate_codes` by the full product, of which [batch, n] never stands whole.

    Args:
        centred: x − b, [batch, d].
        columns: [columns] int64 features whose preactivations are wanted too.

    Returns:
        the codes, and the preactivations of `columns`, [batch, columns].
    """
    if columns is None:
        columns = torch.empty(0, dtype=torch.int64, device=centred.device)
    wanted = centred.new_empty(len(centred), len(columns))
    parts = []
    for rows, target in zip(centred.split(ROWS), wanted.split(ROWS), strict=True):
        products = rows @ sae.encoder.T
        if sae.latent_bias is not None:
            products += sae.latent_bias
        parts.append(top_codes(products, sae.config.slots, settle=products.device.type == "cpu"))
        target.copy_(products[:, columns])
    return stacked(parts), wanted


def _slack(x: Tensor, coarse_x: Tensor, w_norm: Tensor, w_error: Tensor) -> Tensor:
    """How far a coarse score can lie below the true one, at most, for any feature: [rows].

    x·w − x̃·w̃ = x·(w − w̃) + (x − x̃)·w̃, each at most the product of the norms (Cauchy–Schwarz); the norms of the
    rounding errors are measured, which bounds far tighter than the worst case. The last term is for float32 sums.
    """
    x_norm, x_error = _norms(x, coarse_x)
    w_coarse = w_norm + w_error
    return x_norm * w_error + x_error * w_coarse + x.shape[1] * 2.0**-23 * (x_norm + x_error) * w_coarse


def _norms(exact: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of every row of `exact` [rows, d], and of what `coarse` is off by; a few rows at a time."""
    pairs = zip(exact.split(CACHED), coarse.split(CACHED), strict=True)
    norms = [(torch.linalg.vector_norm(a, dim=1), torch.linalg.vector_norm(a - b, dim=1)) for a, b in pairs]
    return torch.cat([norm for norm, _ in norms]), torch.cat([error for _, error in norms])


def _scores(encoder: Tensor, indices: Tensor, centred: Tensor) -> Tensor:
    """encoder[indices[r, j]] · centred[r]: [batch, proposed]."""
    everything = Pairs(Codes(torch.ones(indices.shape, device=centred.device), indices), 0, len(encoder))
    return everything.dots(centred, encoder).reshape(indices.shape)


def candidates_pay(sae: SparseAutoencoder) -> bool:
    """Whether the detour is the shorter way for this autoencoder, where it stands."""
    return is_large(sae.config.n, sae.config.d) and _is_fast(sae.bias.device)


def is_large(n: int, d: int) -> bool:
    """Whether an autoencoder of n features of d channels is large enough for the detour, on a machine made for it."""
    return n * d >= LARGE


def _is_fast(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 matrices natively, with sums in float32."""
    if device.type != "cpu":
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    native = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return bool(supported is not None and supported() and any(check is not None and check() for check in native))
