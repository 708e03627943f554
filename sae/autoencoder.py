"""The TopK sparse autoencoder (SAE): x ≈ x̂ = Σ z_i f_i + b with at most k of the n codes z_i non-zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import InputError


@dataclass(frozen=True)
class SAEConfig:
    """The shape of an autoencoder.

    Attributes:
        d: channels of the vectors it reads.
        n: features (dictionary size, n_f in the paper).
        k: features a vector may use at most.

    Raises:
        InputError: a size below 1, or k above n.
    """

    d: int
    n: int
    k: int

    def __post_init__(self) -> None:
        if min(self.d, self.n, self.k) < 1:
            raise InputError(f"An SAE needs d, n and k of at least 1, not d={self.d}, n={self.n}, k={self.k}.")
        if self.k > self.n:
            raise InputError(f"An SAE of {self.n} features cannot use k={self.k} of them; k must not exceed n.")


class Codes(NamedTuple):
    """Sparse codes of a batch.

    Attributes:
        values: [batch, k] activations >= 0, largest first; 0 marks an unused slot.
        indices: [batch, k] int64 features, 0 in unused slots; equal values stand in ascending feature order.
    """

    values: Tensor
    indices: Tensor


class SparseAutoencoder(nn.Module):
    """z = TopK(ReLU(W_enc (x − b))), x̂ = W_dec z + b (paper, section 3.1; one b, shared by both sides).

    Parameters:
        encoder: [n, d], rows of W_enc.
        decoder: [n, d], rows are the concept vectors f_i (columns of W_dec), of unit norm after training.
        bias: [d], b.
    """

    def __init__(self, config: SAEConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        """Zero bias; encoder and decoder are uninitialised until `initialise` or a checkpoint fills them."""
        super().__init__()
        self.config = config
        self.encoder = nn.Parameter(torch.empty(config.n, config.d, device=device, dtype=dtype))
        self.decoder = nn.Parameter(torch.empty(config.n, config.d, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(config.d, device=device, dtype=dtype))

    @torch.no_grad()
    def initialise(self, seed: int, bias: Tensor | None = None) -> SparseAutoencoder:
        """Fill with random unit concept vectors, the encoder tied to them (W_enc = W_decᵀ); returns itself.

        Args:
            seed: of the directions, drawn on the CPU so that every device gets the same ones.
            bias: [d], what b starts from (zero when None).
        """
        generator = torch.Generator("cpu").manual_seed(seed)
        directions = torch.randn(self.config.n, self.config.d, generator=generator)
        self.decoder.copy_(F.normalize(directions, dim=1))
        self.encoder.copy_(self.decoder)
        if bias is not None:
            self.bias.copy_(bias)
        return self

    def encode(self, x: Tensor) -> Codes:
        """The k strongest features of each vector.

        On a CPU, kernels may round differently for different batch sizes. Whoever needs results that do
        not depend on how vectors were batched calls this once per image, as the labelling job does.

        Args:
            x: [batch, d].

        Raises:
            InputError: x is not of this width.
        """
        if x.ndim != 2 or x.shape[1] != self.config.d:
            raise InputError(f"The SAE reads vectors [batch, {self.config.d}], not {list(x.shape)}.")
        return top_codes(self.preactivations(x), self.config.k)

    def preactivations(self, x: Tensor) -> Tensor:
        """W_enc (x − b): [batch, d] -> [batch, n]."""
        return (x - self.bias) @ self.encoder.T

    def decode(self, codes: Codes) -> Tensor:
        """x̂ = Σ_j values_j f_{indices_j} + b: [batch, d]; no [batch, k, d] or [batch, n] in between."""
        return weighted_rows(self.decoder, codes.indices, codes.values) + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct: [batch, d] -> [batch, d]; raises as `encode`."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale every concept vector to unit norm, in place."""
        self.decoder.div_(torch.linalg.vector_norm(self.decoder, dim=1, keepdim=True).clamp_min_(1e-12))


def top_codes(preactivations: Tensor, k: int) -> Codes:
    """TopK(ReLU(a)): the k largest positive entries of each row; among equal entries the lower index wins.

    Args:
        preactivations: a, [batch, n] with n >= k.
    """
    n = preactivations.shape[1]
    # One entry more than wanted: a tie across the border of the top k shows up as two equal neighbours.
    values, indices = preactivations.topk(min(k + 1, n), dim=1)
    tied = ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] > 0)).any(dim=1)
    values, indices = values[:, :k], indices[:, :k]
    if bool(tied.any()):
        # topk leaves open which of two equal entries it returns; a stable sort of those few rows does not.
        rows = tied.nonzero().squeeze(1)
        order = preactivations.detach()[rows].sort(dim=1, descending=True, stable=True).indices[:, :k]
        indices = indices.index_copy(0, rows, order)
        values = preactivations.gather(1, indices)
    values = values.relu()
    return Codes(values, indices.masked_fill(values == 0, 0))


def weighted_rows(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """out[r] = Σ_j weights[r, j] · table[indices[r, j]], differentiable in table and weights.

    Args:
        table: [rows, d].
        indices, weights: [batch, k].

    Returns:
        [batch, d]; never builds [batch, k, d].
    """
    return F.embedding_bag(indices, table, per_sample_weights=weights.to(table.dtype), mode="sum")
