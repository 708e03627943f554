"""The shape of an autoencoder: everything its tensors' sizes and its formula depend on."""

from __future__ import annotations

from dataclasses import dataclass

from gazetteer.data.core.errors import InputError

ACTIVATIONS = ("topk", "relu", "jumprelu")
NORMALISATIONS = ("none", "layer_norm", "unit", "norm")


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
        latent_bias: whether a bias is added before the activation, as some foreign checkpoints have it; ours never do.
        activation: ``topk``; or ``relu`` (every positive activation counts) and ``jumprelu`` (every one above the
            feature's threshold), of which a vector keeps the k largest.
        normalise: what is done to each vector before encoding and undone after decoding: ``none``, ``layer_norm``
            (mean 0 and deviation 1 over its channels), ``unit`` (length 1), ``norm`` (length √d).
        transcoder: its decoder writes what another place of the model has, so that nothing here can be compared with
            its reconstruction or steered along its concept vectors.
        d_out: channels of what a transcoder writes; None = d.
        output_bias: whether a transcoder adds a bias of its own to what it writes.
        scaled: whether each channel is multiplied with a factor of its own before encoding.
        time_dim: width of the timestep's embedding, of one whose factors and latent bias are functions of the
            timestep (FiLM); it encodes once it knows that (`SparseAutoencoder.at`). 0: it has none.
        time_scale: what the sampler's timestep is divided by before it is embedded.

    Raises:
        InputError: a size below 1, k above n, max_k outside k … n or without `batch_topk`, prefixes that do not ascend
            to n, an unknown activation or normalisation, or a switch that is neither true nor false.
    """

    d: int
    n: int
    k: int
    batch_topk: bool = False
    max_k: int | None = None
    prefixes: tuple[int, ...] = ()
    latent_bias: bool = False
    activation: str = "topk"
    normalise: str = "none"
    transcoder: bool = False
    d_out: int | None = None
    output_bias: bool = False
    scaled: bool = False
    time_dim: int = 0
    time_scale: float = 1.0

    @property
    def writes(self) -> int:
        """Channels of what its decoder writes."""
        return self.d if self.d_out is None else self.d_out

    @property
    def free(self) -> bool:
        """Whether vectors differ in how many features they use, and a code has only as many slots as are used."""
        return self.activation != "topk"

    @property
    def thresholds(self) -> tuple[int, ...] | None:
        """The size of `threshold`: a number, one a feature, or None where there is none."""
        return () if self.batch_topk else (self.n,) if self.activation == "jumprelu" else None

    @property
    def slots(self) -> int:
        """Length of a code: the features one vector may use at most."""
        if not self.batch_topk:
            return self.k
        return min(self.n, 4 * self.k) if self.max_k is None else self.max_k

    def __post_init__(self) -> None:
        if min(self.d, self.n, self.k) < 1:
            raise InputError(f"An SAE needs d, n and k of at least 1, not d={self.d}, n={self.n}, k={self.k}.")
        for name in ("batch_topk", "latent_bias", "transcoder", "output_bias", "scaled"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"An SAE's {name} must be true or false, not {getattr(self, name)!r}.")
        if self.k > self.n:
            raise InputError(f"An SAE of {self.n} features cannot use k={self.k} of them; k must not exceed n.")
        for name, value, accepted in (
            ("activation", self.activation, ACTIVATIONS), ("normalise", self.normalise, NORMALISATIONS)
        ):  # fmt: skip
            if value not in accepted:
                raise InputError(f"An SAE's {name} is one of {', '.join(accepted)}, not {value!r}.")
        if not self.transcoder and (self.writes != self.d or self.output_bias):
            raise InputError("Only a transcoder writes another width than it reads, or has a bias for that alone.")
        if self.writes < 1 or self.time_dim < 0 or self.time_dim % 2:
            raise InputError(f"d_out must be at least 1 and time_dim even, not {self.d_out} and {self.time_dim}.")
        if isinstance(self.time_scale, bool) or not 0 < self.time_scale < float("inf"):
            raise InputError(f"An SAE's time_scale must be a positive number, not {self.time_scale!r}.")
        if self.batch_topk and self.free:
            raise InputError(f"An SAE is either batch_topk or {self.activation}.")
        if self.max_k is not None and not (self.batch_topk and self.k <= self.max_k <= self.n):
            raise InputError(f"max_k={self.max_k} must lie between k={self.k} and n={self.n}, and needs batch_topk.")
        ascending = all(low < high for low, high in zip((0, *self.prefixes), self.prefixes, strict=False))
        if self.prefixes and not (ascending and self.prefixes[-1] == self.n):
            raise InputError(f"Matryoshka prefixes must ascend to n={self.n}, not {list(self.prefixes)}.")
