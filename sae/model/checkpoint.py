"""Autoencoders of a model's sites: one folder a site (`sae.model.files`), each checked to belong there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.files import CONFIG, read_folder
from gazetteer.sae.model.formats import recognise


def load_pretrained(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[SparseAutoencoder, dict[str, Any]]:
    """`SparseAutoencoder.from_pretrained`, and everything that its ``config.json`` says; raises as `read_folder`."""
    stored = read_folder(folder)
    return SparseAutoencoder.of_stored(stored, device, dtype), stored.config


def _stated_site(config: Mapping[str, Any], folder: Path) -> Site | None:
    """The site in a ``config.json``, if it names one; raises InputError when it names it wrongly."""
    site = config.get("site")
    try:
        return Site(**site) if site is not None else None
    except TypeError as error:
        raise InputError(f"{folder / CONFIG}: site must give block, branch and t, not {site!r}.") from error


def expect_width(sae: SparseAutoencoder, d: int, site: Site, folder: Path | str | None = None) -> None:
    """Raises InputError unless `sae` reads vectors of the site's width `d`."""
    if sae.config.d != d:
        name = f"The SAE in {folder}" if folder is not None else f"The SAE of {site.slug}"
        raise InputError(f"{name} expects {sae.config.d} channels, but {site.block} has {d}.")


def unfinished_sites(root: Path | str, sites: Iterable[Site]) -> list[str]:
    """Names of the sites that have no finished autoencoder in ``ROOT/<site.slug>/``, sorted."""
    return [site.slug for site in sorted(set(sites)) if not _finished(Path(root) / site.slug)]


def require_finished(root: Path | str, sites: Iterable[Site]) -> None:
    """InputError that names the sites without a finished autoencoder in ``ROOT/<site.slug>/``, and what to do."""
    wanted = sorted(set(sites))
    missing = unfinished_sites(root, wanted)
    if not missing:
        return
    inside = Path(root) / "saes"
    if not unfinished_sites(inside, wanted):
        help = f"they are in {inside}: set saes to that folder"
    else:
        help = "gazetteer sae train --out FOLDER makes them, in FOLDER/saes, which saes must name"
    raise InputError(f"{root} has no SAE for {len(missing)} of {len(wanted)} sites ({help}): {', '.join(missing)}.")


def _finished(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or recognise(folder) is not None


def load_site_saes(
    root: Path | str,
    sites: Iterable[Site],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    signal: str = "",
) -> dict[Site, SparseAutoencoder]:
    """The autoencoders of these sites from ``ROOT/<site.slug>/``.

    Args:
        signal: ``update`` states of autoencoders that do not say it what they read: a block's output minus its input.

    Raises:
        InputError: some are missing (all named), or one is broken, was trained at another site, or reads something
            else than updates, or does not say what.
    """
    root, wanted = Path(root), sorted(set(sites))
    require_finished(root, wanted)
    saes: dict[Site, SparseAutoencoder] = {}
    for site in wanted:
        saes[site], config = load_pretrained(root / site.slug, device, dtype)
        stated = saes[site].signal or signal
        expect_updates(stated, root / site.slug)
        saes[site].signal = stated
        own = _stated_site(config, root / site.slug)
        if own is not None and own.slug != site.slug:
            raise InputError(f"The SAE in {root / site.slug} was trained at {own.slug}.")
    return saes


def expect_updates(signal: str, folder: Path) -> None:
    """Raises InputError unless an autoencoder reads a block's update, which is what it is going to be given."""
    if not signal:
        raise InputError(
            f"The SAE in {folder} does not say what it reads, and is given a block's update (output minus input). "
            "Many published ones (SAeUron, SAEmnesia) read the block's output, of which every feature would be wrong; "
            "if this one was trained on updates, say so with sae_check.signal=update."
        )
    if signal != "update":
        raise InputError(
            f"The SAE in {folder} reads a block's {signal}; only those of its update (output minus input) can be used."
        )
