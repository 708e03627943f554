"""What training asks of its data: vectors in a shuffled order that can be re-entered at any step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from gazetteer.data.core.shuffle import shuffled_indices


class VectorSource(Protocol):
    """A set of vectors; `gazetteer.data.inputs.activations.ActivationDataset` is one.

    Attributes:
        d: width of a vector.
        vectors: how many there are.
        digest: names the contents, so that a resumed run can tell that the data changed.
    """

    @property
    def d(self) -> int:
        """Width."""
        ...

    @property
    def vectors(self) -> int:
        """Count."""
        ...

    @property
    def digest(self) -> str:
        """Name of the contents."""
        ...

    def batches(self, batch_size: int, seed: int, start_step: int = 0, epochs: int | None = None) -> Iterator[Tensor]:
        """Float32 [batch_size, d] for steps start_step, start_step + 1, …; equal arguments, equal batches."""
        ...


class TensorSource:
    """A `VectorSource` over a tensor in memory."""

    def __init__(self, vectors: Tensor, digest: str = "") -> None:
        """Take vectors [count, d] as they are."""
        self._table = vectors
        self.vectors, self.d = vectors.shape
        self.digest = digest

    def batches(self, batch_size: int, seed: int, start_step: int = 0, epochs: int | None = None) -> Iterator[Tensor]:
        """As `VectorSource.batches`."""
        for indices in shuffled_indices(self.vectors, batch_size, seed, start_step, epochs):
            yield self._table[torch.from_numpy(indices)].float()
