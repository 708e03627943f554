"""The shape of an autoencoder: everything its tensors' sizes and its formula depend on."""

from __future__ import annotations

from dataclasses import dataclass

from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
class SAEConfig:
    """The shape of an autoencoder.

    Attributes:
        d: channels of the vectors it reads.
        n: features (dictionary size, n_f in the paper).
        k: features a vector may use at most; with `batch_topk`, on average over a batch.
        batch_topk: train with the k · batch strongest activations of a whole batch (BatchTopK, Bussmann et al.
            2024), encode with a threshold learned meanwhile, so that codes do not depend on the batch.
        max_k: features one vector may use at most under `batch_topk`; None = 4k.
        prefixes: Matryoshka prefixes (Bussmann et al. 2025): ascending feature counts, the last of them n, each
            trained to reconstruct without the features after it; empty = the whole dictionary alone.
        latent_bias: whether a bias is added before the TopK, as some foreign checkpoints have it; ours never do.

    Raises:
        InputError: a size below 1, k above n, max_k outside k … n or without `batch_topk`, or prefixes that do
            not ascend to n.
    """

    d: int
    n: int
    k: int
    batch_topk: bool = False
    max_k: int | None = None
    prefixes: tuple[int, ...] = ()
    latent_bias: bool = False

    @property
    def slots(self) -> int:
        """Length of a code: the features one vector may use at most."""
        if not self.batch_topk:
            return self.k
        return min(self.n, 4 * self.k) if self.max_k is None else self.max_k

    def __post_init__(self) -> None:
        if min(self.d, self.n, self.k) < 1:
            raise InputError(f"An SAE needs d, n and k of at least 1, not d={self.d}, n={self.n}, k={self.k}.")
        if self.k > self.n:
            raise InputError(f"An SAE of {self.n} features cannot use k={self.k} of them; k must not exceed n.")
        if self.max_k is not None and not (self.batch_topk and self.k <= self.max_k <= self.n):
            raise InputError(f"max_k={self.max_k} must lie between k={self.k} and n={self.n}, and needs batch_topk.")
        ascending = all(low < high for low, high in zip((0, *self.prefixes), self.prefixes, strict=False))
        if self.prefixes and not (ascending and self.prefixes[-1] == self.n):
            raise InputError(f"Matryoshka prefixes must ascend to n={self.n}, not {list(self.prefixes)}.")
