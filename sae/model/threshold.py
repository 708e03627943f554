"""BatchTopK autoencoders whose files have no threshold: how they are read, and how one is estimated.

BatchTopK (Bussmann et al. 2024) trains on the k · batch strongest activations of a whole batch; encoding needs a
threshold in place of the batch, which some projects do not store. Until there is one, the k strongest of every vector
are taken, as those projects' own loaders do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.sites import Site
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.sources import SaeSource, configs

LACKS = "lacks_threshold"
"""Key of what a file says (`read_config`): it was trained with the strongest of a batch and stores no threshold."""
ORIGIN = "threshold_from"
"""Key of ours: where a threshold comes from that its training did not leave."""


def with_threshold(sae: SparseAutoencoder, threshold: float) -> SparseAutoencoder:
    """A TopK autoencoder as the BatchTopK one that it was trained as; the tensors are shared."""
    shape = replace(sae.config, activation="topk", batch_topk=True, max_k=None)
    made = SparseAutoencoder(shape, "meta")
    value = torch.full((), threshold, dtype=sae.bias.dtype, device=sae.bias.device)
    made.load_state_dict({**sae.state_dict(), "threshold": value}, assign=True)
    made.signal = sae.signal
    return made.eval().requires_grad_(False)


@torch.no_grad()
def batch_threshold(sae: SparseAutoencoder, x: Tensor) -> float:
    """What leaves the k · vectors strongest activations of vectors x [vectors, d], on average k each; 0 if none fires.

    Of one vector at most `SAEConfig.slots` are looked at, as when encoding.
    """
    wide = with_threshold(sae, 0.0)
    values = wide.strongest_of_batch(wide.encode(x)).values
    values = values[values > 0]
    if len(values) == 0:
        return 0.0
    # Values up to the threshold do not count, and the smallest that is kept does.
    return float(torch.nextafter(values.min(), values.new_zeros(())))


@torch.no_grad()
def held_out_l0(sae: SparseAutoencoder, parts: Sequence[Tensor]) -> float | None:
    """Features that a vector of parts [vectors, d] uses on average, each under the `batch_threshold` of the others.

    On the vectors that set a threshold it is k, whatever that is worth elsewhere. None of fewer than two parts.
    """
    if len(parts) < 2:
        return None
    used = []
    for number, part in enumerate(parts):
        others = torch.cat([*parts[:number], *parts[number + 1 :]])
        used.append((with_threshold(sae, batch_threshold(sae, others)).encode(part).values > 0).sum())
    return int(torch.stack(used).sum()) / sum(map(len, parts))


def reading_notes(saes: SaeSource, sites: Iterable[Site]) -> dict[str, str]:
    """By the slug of a site, what a reader of its codes has to know of how its autoencoder is read; most need nothing.

    Raises:
        InputError: as `configs`.
    """
    notes = {site.slug: _note(stated) for site, stated in configs(saes, sites).items()}
    return {slug: note for slug, note in sorted(notes.items()) if note}


def _note(stated: Mapping[str, Any]) -> str:
    notes = []
    if stated.get(LACKS):
        notes.append(
            f"trained as BatchTopK, and its file has no threshold: the {stated['k']} strongest of every vector are "
            "taken (gazetteer sae threshold estimates one on pictures)"
        )
    if stated.get(ORIGIN):
        notes.append(f"its BatchTopK threshold was {stated[ORIGIN]}")
    if stated.get("differs"):
        notes.append(str(stated["differs"]))
    return "; ".join(notes)
