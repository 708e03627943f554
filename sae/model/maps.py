"""Activations become sparse maps: encoded where they are, and fetched when nothing waits for the device any more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gazetteer.data.tables.codes import SparseMap
from gazetteer.sae.model.autoencoder import SparseAutoencoder

_LARGEST = float(np.finfo(np.float16).max)


class CodeTooLarge(ValueError):
    """A feature fires more strongly than tables hold."""

    def __init__(self, largest: float, whose: str = "") -> None:
        self.largest = largest
        of = f" of the SAE of {whose}" if whose else ""
        super().__init__(
            f"a feature{of} fires with {largest:,.0f}, more strongly than tables hold ({_LARGEST:,.0f}, in 16 bits); "
            "with its encoder, latent bias and threshold divided by a number and its decoder multiplied by it, an SAE "
            "reconstructs the same with smaller codes"
        )


@dataclass(frozen=True)
class EncodedMaps:
    """Codes of some pictures at one site, still on the device that made them.

    Attributes:
        values: float16 [pictures, cells, slots], rounded here, once, so that all later is computed from what is stored.
        features: int64 of the same shape.
        cut: active features that found no slot, int64 [pictures, cells].
        finite: whether all activations were, bool [].
        largest: of the values before they were rounded, [].
        free: whether the formula leaves open how many features a cell uses.
    """

    height: int
    width: int
    values: Tensor
    features: Tensor
    cut: Tensor
    finite: Tensor
    largest: Tensor
    free: bool

    def fetched(self) -> list[SparseMap]:
        """The map of every picture; waits for the device.

        Where the formula leaves open how many features a cell uses, a code has as many slots as its busiest cell needs.

        Raises:
            ValueError: an activation was not finite.
            CodeTooLarge: a code is larger than tables hold.
        """
        if not bool(self.finite):
            raise ValueError("an activation is not finite")
        values = self.values.cpu().numpy()
        if np.isinf(values).any():
            raise CodeTooLarge(float(self.largest))
        features, cut = self.features.cpu().numpy().astype(np.uint32), self.cut.cpu().numpy()
        return [self._map(*cells) for cells in zip(values, features, cut, strict=True)]

    def _map(self, value: np.ndarray, feature: np.ndarray, cut: np.ndarray) -> SparseMap:
        if self.free:
            slots = max(1, int((value > 0).sum(axis=1).max()))
            value, feature = value[:, :slots], feature[:, :slots]
        return SparseMap(
            self.height, self.width, value.shape[1], feature.reshape(-1), value.reshape(-1), int(cut.sum())
        )


@torch.no_grad()
def encode_maps(sae: SparseAutoencoder, activations: Tensor, height: int, width: int) -> EncodedMaps:
    """The codes of pictures at one site, from their activations [pictures, cells, channels], without waiting for them.

    Kernels may round differently for different numbers of pictures.
    """
    x = activations.flatten(0, 1).to(sae.bias.device)
    code, cut = sae.encode_and_count(x)
    shape = activations.shape[:2]
    return EncodedMaps(
        height, width, code.values.to(torch.float16).unflatten(0, shape),
        code.indices.to(torch.int64).unflatten(0, shape), cut.unflatten(0, shape), torch.isfinite(x).all(),
        code.values.amax(), sae.config.free,
    )  # fmt: skip


def encode_map(sae: SparseAutoencoder, vectors: Tensor, height: int, width: int) -> SparseMap:
    """The code of one picture at one site, from its activations [cells, channels]; raises as `EncodedMaps.fetched`."""
    return encode_maps(sae, vectors[None], height, width).fetched()[0]
