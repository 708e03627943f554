"""The sparse autoencoder (SAE): x ≈ x̂ = Σ z_i f_i + b with at most k of the n codes z_i non-zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gazetteer.data.core.errors import InputError
from gazetteer.sae.model.chunks import ROWS, scale_to_unit
from gazetteer.sae.model.files import Stored, read_folder, write_folder
from gazetteer.sae.model.shape import SAEConfig
from gazetteer.sae.model.timing import TimeModulation


class Codes(NamedTuple):
    """Sparse codes of a batch.

    Attributes:
        values: [batch, slots] activations >= 0, largest first; 0 marks an unused slot (`SAEConfig.slots`, k as a rule).
        indices: [batch, slots] int64 features, 0 in unused slots; equal values stand in ascending feature order.
    """

    values: Tensor
    indices: Tensor


class SparseAutoencoder(nn.Module):
    """z = TopK(ReLU(W_enc (x − b))), x̂ = W_dec z + b (paper, section 3.1; one b, shared by both sides).

    Foreign ones may be ReLU or JumpReLU autoencoders and normalise each vector (`SAEConfig`); what else differs between
    projects is folded into these tensors (`sae.formats.parts`).

    Parameters:
        encoder: [n, d], rows of W_enc.
        decoder: [n, d] (d_out of a transcoder), rows are the concept vectors f_i (columns of W_dec), of unit norm after
            training.
        bias: [d], b.
        latent_bias: [n], added before the TopK, or None.
        output_bias: [d_out], what a transcoder adds instead of b, or None.
        time: what makes scale and latent bias of the timestep (`at`), or None.

    Buffers:
        threshold: activations up to it do not count when encoding: scalar under BatchTopK, [n] under JumpReLU; None
            otherwise.
        scale: [d], what each channel is multiplied with before encoding, or None.

    Attributes:
        signal: what it reads of a block, ``update`` (output minus input), ``output`` or ``input``; None where nobody
            said. It is written with it.
    """

    latent_bias: nn.Parameter | None
    output_bias: nn.Parameter | None
    threshold: Tensor | None
    scale: Tensor | None

    def __init__(self, config: SAEConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        """Zero bias; encoder and decoder are uninitialised until `initialise` or a checkpoint fills them."""
        super().__init__()
        self.config = config
        self.signal: str | None = "update"
        self.encoder = nn.Parameter(torch.empty(config.n, config.d, device=device, dtype=dtype))
        self.decoder = nn.Parameter(torch.empty(config.n, config.writes, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(config.d, device=device, dtype=dtype))
        bias = nn.Parameter(torch.zeros(config.n, device=device, dtype=dtype)) if config.latent_bias else None
        self.register_parameter("latent_bias", bias)
        written = nn.Parameter(torch.zeros(config.writes, device=device, dtype=dtype)) if config.output_bias else None
        self.register_parameter("output_bias", written)
        self.register_buffer("scale", torch.ones(config.d, device=device, dtype=dtype) if config.scaled else None)
        self.time = TimeModulation(config.time_dim, config.d, device, dtype) if config.time_dim else None
        sizes = config.thresholds
        self.register_buffer("threshold", None if sizes is None else torch.zeros(sizes, device=device, dtype=dtype))

    @classmethod
    def from_pretrained(
        cls, name: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> SparseAutoencoder:
        """Read a folder or a hub id ``owner/repository[/folder or file][@revision]``; raises as `files.read_folder`.

        The result is in `dtype`, without gradients and in eval mode.
        """
        return cls.of_stored(read_folder(name), device, dtype)

    @classmethod
    def of_stored(
        cls, stored: Stored, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> SparseAutoencoder:
        """The autoencoder of what was read, in `dtype`, without gradients and in eval mode."""
        sae = cls(stored.shape, device, dtype)
        sae.load_state_dict(stored.tensors)
        sae.signal = stored.config.get("signal", "update")
        return sae.eval().requires_grad_(False)

    def save_pretrained(
        self, folder: Path | str, metadata: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write a folder that `from_pretrained` reads; arguments and errors as `files.write_folder`."""
        write_folder(folder, self.config, self.state_dict(), {"signal": self.signal, **(metadata or {})}, dtype)

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

    @torch.no_grad()
    def at(self, timestep: float) -> SparseAutoencoder:
        """What a time-conditioned autoencoder is at one timestep of the sampler; others are themselves.

        W (x ⊙ s + h) + c: s becomes `scale`, and W h joins the latent bias. Encoder and decoder are shared.
        """
        if self.time is None:
            return self
        scale, shift = self.time.at(timestep / self.config.time_scale)
        bound = SparseAutoencoder(replace(self.config, time_dim=0, latent_bias=True, scaled=True), "meta")
        moved = self.encoder @ shift if self.latent_bias is None else self.latent_bias + self.encoder @ shift
        tensors = {name: value for name, value in self.state_dict().items() if not name.startswith("time.")}
        bound.load_state_dict({**tensors, "scale": scale, "latent_bias": moved}, assign=True)
        bound.signal = self.signal
        return bound.eval().requires_grad_(False)

    def encode(self, x: Tensor) -> Codes:
        """The k strongest features of each vector.

        On a CPU, kernels may round differently for different batch sizes. Whoever needs results that do
        not depend on how vectors were batched calls this once per image, as the labelling job does.

        Args:
            x: [batch, d].

        Returns:
            codes of k slots; under BatchTopK of `SAEConfig.slots`, in which what is above the threshold stands.

        Raises:
            InputError: x is not of this width.
        """
        return self.encode_and_count(x)[0]

    def encode_and_count(self, x: Tensor) -> tuple[Codes, Tensor]:
        """`encode`, and how many active features of each vector found no slot: [batch] int64.

        Those are the weakest. None is cut where the formula itself says k (TopK).
        """
        self.expect_vectors(x)
        parts, cut = [], []
        for rows in x.split(ROWS):  # [batch, n] never stands whole
            active = self.active(self.preactivations(rows))
            parts.append(top_codes(active, self.config.slots))
            used = (parts[-1].values > 0).sum(dim=1)
            counts = self.threshold is not None or self.config.free
            cut.append((active > 0).sum(dim=1) - used if counts else torch.zeros_like(used))
        return stacked(parts), torch.cat(cut)

    def active(self, preactivations: Tensor) -> Tensor:
        """Preactivations [batch, n] with 0 where one does not reach its feature's threshold."""
        if self.threshold is None:
            return preactivations
        return preactivations.masked_fill(preactivations <= self.threshold, 0.0)

    def expect_vectors(self, x: Tensor) -> None:
        """Raises InputError unless x is [batch, d]."""
        if x.ndim != 2 or x.shape[1] != self.config.d:
            raise InputError(f"The SAE reads vectors [batch, {self.config.d}], not {list(x.shape)}.")

    def preactivations(self, x: Tensor) -> Tensor:
        """W_enc (N(x) ⊙ s − b), plus the latent bias if there is: [batch, d] -> [batch, n]; InputError before `at`."""
        if self.time is not None:
            raise InputError(
                "The SAE is conditioned on the timestep, which labelling tells it (`at`) and nothing else does so far: "
                "layouts, causes, scores and edits in units of codes need one that is not."
            )
        read = normalised(x, self.config.normalise)
        products = ((read if self.scale is None else read * self.scale) - self.bias) @ self.encoder.T
        return products if self.latent_bias is None else products + self.latent_bias

    def above_threshold(self, codes: Codes) -> Codes:
        """What BatchTopK keeps of codes when encoding; all of them otherwise."""
        return codes if self.threshold is None else _kept(codes, codes.values > self.threshold)

    def strongest_of_batch(self, codes: Codes) -> Codes:
        """What BatchTopK keeps of codes while it trains: the k · batch largest; all of them otherwise.

        Values that equal the smallest one kept are kept as well.
        """
        spare = codes.values.numel() - self.config.k * len(codes.values)
        if not self.config.batch_topk or spare <= 0:
            return codes
        return _kept(codes, codes.values >= codes.values.flatten().kthvalue(spare + 1).values)

    def decode(self, codes: Codes) -> Tensor:
        """x̂ = Σ_j values_j f_{indices_j} + b: [batch, d]; no [batch, k, d] or [batch, n] in between.

        Of a transcoder, what it says the other place holds: [batch, d_out].
        """
        bias = self.bias if self.output_bias is None else self.output_bias
        return weighted_rows(self.decoder, codes.indices, codes.values) + bias

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct: [batch, d] -> [batch, d]; raises as `encode`."""
        return self.restored(self.decode(self.encode(x)), x)

    def restored(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """What `decode` gives, in the units of the vectors x that were encoded: [batch, d] twice -> [batch, d]."""
        centre, scale = statistics(x, self.config.normalise)
        return x_hat if scale is None else x_hat * scale + centre

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale every concept vector to unit norm, in place."""
        scale_to_unit(self.decoder)


def statistics(x: Tensor, how: str) -> tuple[Tensor | float, Tensor | None]:
    """What is subtracted from each vector and what it is divided by, [batch, 1] each; no scale for ``none``."""
    if how == "none":
        return 0.0, None
    if how == "layer_norm":
        return x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return 0.0, length if how == "unit" else length / x.shape[1] ** 0.5


def normalised(x: Tensor, how: str) -> Tensor:
    """Each vector as `SAEConfig.normalise` says: [batch, d] -> [batch, d]."""
    centre, scale = statistics(x, how)
    return x if scale is None else (x - centre) / (scale + (1e-5 if how == "layer_norm" else 1e-12))


def stacked(parts: Sequence[Codes]) -> Codes:
    """The codes of consecutive vectors, at least one part, as those of one batch."""
    return parts[0] if len(parts) == 1 else Codes(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _kept(codes: Codes, mask: Tensor) -> Codes:
    """The codes where `mask` [batch, slots] holds, and unused slots elsewhere."""
    return Codes(codes.values.masked_fill(~mask, 0.0), codes.indices.masked_fill(~mask | (codes.values == 0), 0))


def top_codes(preactivations: Tensor, k: int, settle: bool = True) -> Codes:
    """TopK(ReLU(a)): the k largest positive entries of each row; among equal entries the lower index wins.

    Args:
        preactivations: a, [batch, n] with n >= k.
        settle: False leaves the order of equal entries to torch, and spares a step on an accelerator the wait for
            whether there are any.
    """
    n = preactivations.shape[1]
    if not settle:
        values, indices = preactivations.topk(k, dim=1)
        values = values.relu()
        return Codes(values, indices.masked_fill(values == 0, 0))
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
