"""What every format is read into, and the algebra that folds other formulas into this one.

z_i = a_i where a_i > θ_i (and only the k largest, where there is a k), a = W_enc (N(x) − b) + c, x̂ = N⁻¹(W_dec z + b).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.sae.formats.restricted import unreadable

MOST_ACTIVE = 256
"""Features that one vector may use where the formula has no k (ReLU, JumpReLU, gated): the largest so many."""


@dataclass(frozen=True)
class Folded:
    """The tensors of an autoencoder.

    Attributes:
        encoder, decoder: [n, d], rows of W_enc and columns of W_dec.
        bias: [d], b, subtracted before encoding and added after decoding.
        latent_bias: [n], c.
        threshold: [n] or scalar, θ >= 0; None where every positive activation counts.
        output_bias: [d_out], what a transcoder adds to what it writes; its decoder is [n, d_out] and its b nothing.
        more: other tensors, by the names of `SparseAutoencoder`.
    """

    encoder: Tensor
    decoder: Tensor
    bias: Tensor
    latent_bias: Tensor
    threshold: Tensor | None = None
    output_bias: Tensor | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a bias of another size, which sums would stretch to the right one or a zero hide."""
        named = {name: getattr(self, name) for name in ("encoder", "decoder", "bias", "latent_bias")}
        optional = {"threshold": self.threshold, "output_bias": self.output_bias}
        named |= {name: value for name, value in optional.items() if value is not None}
        expect_numbers(**named, **self.more)
        expect_sizes(len(self.encoder), latent_bias=self.latent_bias)
        expect_sizes(self.decoder.shape[1], bias=self.bias if self.output_bias is None else self.output_bias)

    def of_transcoder(self) -> Folded:
        """Of one whose b belongs to what it writes, and that subtracts nothing from what it reads."""
        return replace(self, bias=self.encoder.new_zeros(self.encoder.shape[1]), output_bias=self.bias)

    def without_input_bias(self) -> Folded:
        """Of one that does not subtract b: W x + c = W (x − b) + (c + W b)."""
        return replace(self, latent_bias=self.latent_bias + self.encoder @ self.bias)

    def by_decoder_norms(self) -> Folded:
        """Of one whose activations are scaled by the norms s of its concept vectors: W, c and θ grow, f shrinks."""
        norms = torch.linalg.vector_norm(self.decoder, dim=1).clamp_min(1e-8)
        threshold = None if self.threshold is None else self.threshold * norms
        return replace(
            self, encoder=self.encoder * norms[:, None], decoder=self.decoder / norms[:, None],
            latent_bias=self.latent_bias * norms, threshold=threshold,
        )  # fmt: skip

    def of_scaled(self, scale: float) -> Folded:
        """Of one that reads scale · x and gives scale · x̂: W grows by the factor, f and b shrink by it."""
        return replace(self, encoder=self.encoder * scale, decoder=self.decoder / scale, bias=self.bias / scale)

    def tensors(self) -> dict[str, Tensor]:
        """By the names of `SparseAutoencoder`; a latent bias that is all zero is none."""
        tensors = {"encoder": self.encoder, "decoder": self.decoder, "bias": self.bias, "latent_bias": self.latent_bias}
        if self.threshold is not None:
            tensors["threshold"] = self.threshold
        if self.output_bias is not None:
            tensors["output_bias"] = self.output_bias
        tensors |= self.more
        if not bool(self.latent_bias.any()):
            del tensors["latent_bias"]
        return {name: value.contiguous() for name, value in tensors.items()}


def expect_numbers(**tensors: Tensor) -> None:
    """ValueError for a tensor that does not hold floating-point numbers one after the other."""
    for name, value in tensors.items():
        kind = unreadable(value)
        if kind or not value.is_floating_point():
            raise ValueError(
                f"its {name} is {kind or value.dtype}, and plain tensors of floating-point numbers are read"
            )


def expect_sizes(size: int, **vectors: Tensor) -> None:
    """ValueError for a vector of another size."""
    for name, value in vectors.items():
        if list(value.shape) != [size]:
            raise ValueError(f"its {name} is {list(value.shape)} where it needs to be [{size}]")


def gated(encoder: Tensor, decoder: Tensor, bias: Tensor, gate: Tensor, magnitude: Tensor, log_scale: Tensor) -> Folded:
    """A gated autoencoder (Rajamanoharan et al. 2024, eq. 6–7) as the JumpReLU that it is.

    z = 1[W x + b_gate > 0] ⊙ ReLU(exp(r) ⊙ W x + b_mag): with a = exp(r) ⊙ W x + b_mag the gate is open exactly where
    a > b_mag − exp(r) ⊙ b_gate.

    Args:
        encoder, decoder: [n, d]. bias: [d]. gate, magnitude, log_scale: [n], b_gate, b_mag and r.
    """
    expect_sizes(len(encoder), gate=gate, magnitude=magnitude, log_scale=log_scale)
    scale = log_scale.exp()
    threshold = (magnitude - scale * gate).clamp_min(0)
    return Folded(encoder * scale[:, None], decoder, bias, magnitude, threshold)


def jumping(encoder: Tensor, decoder: Tensor, bias: Tensor, latent_bias: Tensor, threshold: Tensor) -> Folded:
    """A JumpReLU autoencoder; activations below zero do not count whatever its threshold."""
    return Folded(encoder, decoder, bias, latent_bias, threshold.clamp_min(0))


def at_most(n: int) -> int:
    """Slots of a code whose formula has no k."""
    return min(n, MOST_ACTIVE)


def switched(stated: Mapping[str, Any], key: str, path: object, default: bool = False) -> bool:
    """What a key that switches a part of the formula says; null is false, and `default` stands where there is none.

    Raises:
        InputError: it is anything else than true, false or null: text such as "false" would be heard as true.
    """
    value = stated.get(key, default)
    if not isinstance(value, bool | None):
        raise InputError(f"{path}: {key} must be true or false, not {value!r}.")
    return bool(value)


FORMULAS = "TopK, BatchTopK, ReLU, JumpReLU and gated autoencoders"


def expect_none(unsupported: list[str], path: object, accepted: str = FORMULAS) -> None:
    """InputError, with what is accepted instead, where a file asks for what cannot be computed here."""
    if unsupported:
        raise InputError(f"{path} asks for {', '.join(unsupported)}; accepted are {accepted}.")
