"""Autoencoders as Python code gives them: loaded, by their sites, or where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch

from gazetteer.data.core.sites import Site
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes
from gazetteer.sae.model.sources import SaeSource

Saes: TypeAlias = Mapping[Site, SparseAutoencoder]
"""Loaded autoencoders by their sites."""

GivenSaes: TypeAlias = Saes | SaeSource
"""Those, or a folder of sites, or patterns of sites with what serves them, as the key ``saes`` names them."""


def loaded_saes(saes: GivenSaes, sites: Iterable[Site], device: torch.device | str = "cpu", signal: str = "") -> Saes:
    """Those that are given, or those of these sites from where they lie; raises as `load_site_saes`."""
    if isinstance(saes, Mapping):
        loaded = {site: sae for site, sae in saes.items() if isinstance(site, Site)}
        if len(loaded) == len(saes):
            return loaded  # type: ignore[return-value]
    wanted = set(sites)
    return load_site_saes(saes, wanted, device=device, signal=signal) if wanted else {}  # type: ignore[arg-type]
