"""Weights and features: does erasing a concept's weights silence the features labelled with it, and only those?

And the other way round: features ablated where they act, in activation space, as the comparator of an edit of weights;
and attribution patching, which asks the gradient which features a concept's J runs through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gazetteer.attribution.objective.objectives import Objective
from gazetteer.attribution.objective.samples import Samples, predict
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.capture import cells, find_block, position_of, states_around
from gazetteer.diffusion.replace import replaced_update
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Saes = Mapping[Site, SparseAutoencoder]


@torch.no_grad()
def activity(unet: nn.Module, samples: Samples, site: Site, sae: SparseAutoencoder, batch: int = 8) -> Tensor:
    """Mean activation of every feature over samples and cells, [features] float64.

    Args:
        samples: inputs at the site's moment; the site's branch is read by the samples' own conditioning.
    """
    total = torch.zeros(sae.config.n, dtype=torch.float64)
    count = 0
    for part in samples.chunks(batch):
        vectors = cells(_update(unet, site.block, part)).flatten(0, 1)
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
    total = torch.zeros(sae.config.n, dtype=torch.float64)
    for part in samples.chunks(batch):
        seen: list[Tensor] = []

        def watch(update: Tensor, seen: list[Tensor] = seen) -> Tensor:
            leaf = update.detach().requires_grad_(True)
            seen.append(leaf)
            return leaf

        with torch.enable_grad(), replaced_update(unet, site.block, watch):
            values = objective(unet, part)
            # The objective may run the base too; the concept's own run comes last (`objectives`).
            found = torch.autograd.grad(values.sum(), seen[-1])[0]
        vectors, slopes = cells(seen[-1].detach()).flatten(0, 1), cells(found).flatten(0, 1)
        with torch.no_grad():
            codes = sae.encode(vectors)
            along = (slopes @ sae.decoder.T.float()).gather(1, codes.indices) * codes.values
        total.index_add_(0, codes.indices.flatten().cpu(), along.flatten().double().cpu())
    return total / len(samples)


@contextmanager
def silenced(pipe: Any, features: Mapping[Site, Sequence[int]], saes: Saes) -> Iterator[None]:
    """While open, z_f·f is taken out of what blocks write, in every cell, at every step, in the site's branch.

    The site nearest in t serves each step of a generation.

    Args:
        features: per site the features to ablate; sites of one block and branch share the steps between them.

    Raises:
        InputError: a site without an autoencoder.
    """
    if missing := [site.slug for site in features if site not in saes]:
        raise InputError(f"There is no autoencoder for the site {missing[0]}.")
    now: list[float] = []

    def remember(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = kwargs["timestep"] if "timestep" in kwargs else args[1]
        now[:] = [position_of(float(torch.as_tensor(value).flatten()[0]), pipe.scheduler.timesteps)]

    def without(block: str, update: Tensor) -> Tensor:
        halves = 2 if pipe.do_classifier_free_guidance else 1
        size = len(update) // halves
        update = update.clone()
        for branch in {site.branch for site in features if site.block == block}:
            if branch == "uncond" and halves == 1:
                continue
            site = min(
                (s for s in features if s.block == block and s.branch == branch), key=lambda s: abs(s.t - now[0])
            )
            rows = slice(0, size) if branch == "uncond" else slice(len(update) - size, len(update))
            update[rows] -= _part_of(update[rows], features[site], saes[site])
        return update

    with ExitStack() as hooks:
        hooks.callback(pipe.unet.register_forward_pre_hook(remember, with_kwargs=True).remove)
        for block in {site.block for site in features}:
            hooks.enter_context(replaced_update(pipe.unet, block, partial(without, block)))
        yield


def _part_of(update: Tensor, features: Sequence[int], sae: SparseAutoencoder) -> Tensor:
    """Σ_f z_f f of an update [batch, channels, h, w], in its shape."""
    vectors = cells(update)
    codes = sae.encode(vectors.flatten(0, 1))
    wanted = torch.isin(codes.indices, torch.tensor(list(features), device=codes.indices.device))
    values = codes.values * wanted
    weights = torch.zeros(len(values), sae.config.n, device=values.device).scatter_add_(1, codes.indices, values)
    found = weights @ sae.decoder.float()
    return found.view(vectors.shape).transpose(1, 2).reshape(update.shape).to(update.dtype)


def _update(unet: nn.Module, block: str, samples: Samples) -> Tensor:
    seen: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before, after = states_around(args, kwargs, output)
        seen.append(after - before)

    handle = find_block(unet, block).register_forward_hook(hook, with_kwargs=True)
    try:
        predict(unet, samples, samples.cond)
    finally:
        handle.remove()
    return seen[0]
