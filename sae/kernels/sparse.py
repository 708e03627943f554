"""Products with sparse codes: every sum below runs over the (vector, feature) pairs in use and nothing else."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gazetteer.sae.model.autoencoder import Codes

SUM = 0  # embedding_bag's own number for its mode


class _ByFeature(NamedTuple):
    """The pairs sorted by feature: places [pairs], vectors [pairs] and where each feature's run starts [n + 1]."""

    order: Tensor
    vectors: Tensor
    offsets: Tensor


class Pairs:
    """The pairs of a batch of codes whose feature lies in [low, high), as a sparse matrix Z [batch, high − low].

    On a CPU unused slots are left out. On an accelerator, where to ask how many there are would wait for the device,
    they stay as pairs of the feature `low` that weigh nothing.

    Attributes:
        values: [pairs] activations > 0 (0 in unused slots), vector by vector.
        features: [pairs] int64, counted from `low`.
        vectors: [pairs] int64, ascending.
        offsets: [batch + 1] where each vector's pairs start.
    """

    def __init__(self, codes: Codes, low: int, high: int) -> None:
        """Leave out unused slots and features outside [low, high)."""
        batch, width = codes.values.shape
        self.n = high - low
        used = (codes.values > 0) & (codes.indices >= low) & (codes.indices < high)
        places = torch.arange(batch * width, device=used.device)
        self.values, self.features = codes.values.reshape(-1), codes.indices.reshape(-1) - low
        self.offsets = torch.arange(0, batch * width + 1, width, device=used.device)
        self._unused: Tensor | None = None
        if not _on_host(used):
            self._unused = ~used.reshape(-1)
            self.values = self.values.masked_fill(self._unused, 0.0)
            self.features = self.features.masked_fill(self._unused, 0)
        elif not bool(used.all()):
            places = used.reshape(-1).nonzero().squeeze(1)
            self.values, self.features = self.values[places], self.features[places]
            self.offsets = F.pad(used.sum(dim=1).cumsum(0), (1, 0))
        self.vectors = places.div(width, rounding_mode="floor")

    @cached_property
    def _by_feature(self) -> _ByFeature:
        # A narrower key sorts in fewer passes; the sort is stable, so a run lists its vectors in order.
        order = self.features.to(torch.int32).sort(stable=True).indices
        counts = torch.zeros(self.n, dtype=torch.int64, device=order.device)
        counts.scatter_add_(0, self.features, torch.ones_like(self.features))
        return _ByFeature(order, self.vectors[order], F.pad(counts.cumsum(0), (1, 0)))

    def rows(self, table: Tensor) -> Tensor:
        """Z · table: [n, d] -> [batch, d]."""
        return _bags(self.features, table, self.offsets, self.values)

    def dots(self, vectors: Tensor, table: Tensor) -> Tensor:
        """vectors[r] · table[i] for every pair (r, i), 0 in unused slots: [batch, d], [n, d] -> [pairs]."""
        if len(self.features) == 0:
            return self.values
        # The derivative of embedding_bag by its weights is exactly these inner products; asked for by itself, it
        # spares the forward pass that autograd would want first.
        products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            vectors, table.detach(), self.features, self.offsets, self.vectors, SUM
        )
        return products if self._unused is None else products.masked_fill(self._unused, 0.0)

    def transposed(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """Mᵀ · vectors: [batch, d] -> [n, d], where M holds `weights` [pairs] in the places of Z."""
        order, rows, offsets = self._by_feature
        return _bags(rows, vectors, offsets, weights[order])

    def per_feature(self, weights: Tensor) -> Tensor:
        """Σ of `weights` [pairs] over the pairs of each feature: [n]."""
        return torch.zeros(self.n, dtype=weights.dtype, device=weights.device).index_add_(0, self.features, weights)


def _on_host(tensor: Tensor) -> bool:
    """Whether asking for a number of a tensor costs nothing but itself."""
    return tensor.device.type == "cpu"


def _bags(indices: Tensor, table: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """out[r] = Σ_{p in [offsets[r], offsets[r+1])} weights[p] · table[indices[p]]."""
    if len(indices) == 0:
        return table.new_zeros(len(offsets) - 1, table.shape[1])
    return F.embedding_bag(
        indices, table.detach(), offsets, per_sample_weights=weights, mode="sum", include_last_offset=True
    )
