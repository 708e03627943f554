"""How active SAE features are, and which of them a concept's J runs through by attribution patching."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.objectives import Objective, heard
from gazetteer.attribution.objective.samples import Samples
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.capture import cells, replaced_update
from gazetteer.sae.model.autoencoder import SparseAutoencoder


@torch.no_grad()
def activity(unet: nn.Module, samples: Samples, site: Site, sae: SparseAutoencoder, batch: int = 8) -> Tensor:
    """Mean activation of every feature over samples and cells, [features] float64.

    Args:
        samples: inputs at the site's moment; the site's branch is read by the samples' own conditioning.
    """
    total = torch.zeros(sae.config.n, dtype=torch.float64)
    count = 0
    for part in samples.chunks(batch):
        vectors = cells(heard(unet, site.port, part)).flatten(0, 1)
        codes = sae.encode(vectors)
        total.index_add_(0, codes.indices.flatten().cpu(), codes.values.flatten().double().cpu())
        count += len(vectors)
    return total / max(1, count)


def patching(
    unet: nn.Module, objective: Objective, samples: Samples, site: Site, sae: SparseAutoencoder, batch: int = 8
) -> Tensor:
    """Attribution patching (Nanda 2023; Syed et al. 2310.10348) of SAE features: α_f = E[Σ_cells z_f · f · dJ/du].

    u is what the block writes and z_f the feature's activation there: removing z_f·f from every cell changes J by
    about −α_f. One gradient serves all features.

    Returns:
        α [features], float64, of J as a mean over samples.
    """
    if site.signal == "input":
        raise InputError(f"Features of what a block is given ({site.port}) cannot be taken out of what it writes.")
    total = torch.zeros(sae.config.n, dtype=torch.float64)
    for part in samples.chunks(batch):
        seen: list[Tensor] = []

        def watch(update: Tensor, seen: list[Tensor] = seen) -> Tensor:
            leaf = update.detach().requires_grad_(True)
            seen.append(leaf)
            return leaf

        with torch.enable_grad(), replaced_update(unet, site.block, watch, site.signal):
            values = objective(unet, part)
            # The objective may run the base too; the concept's own run comes last (`objectives`).
            gradient = torch.autograd.grad(values.sum(), seen[-1])[0]
        vectors, slopes = cells(seen[-1].detach()).flatten(0, 1), cells(gradient).flatten(0, 1)
        with torch.no_grad():
            codes = sae.encode(vectors)
            along = (slopes @ sae.decoder.T.float()).gather(1, codes.indices) * codes.values
        total.index_add_(0, codes.indices.flatten().cpu(), along.flatten().double().cpu())
    return total / len(samples)
