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
from gazetteer.sae.model.sources import (
    SaeSource,
    at_its_block,
    configs,
    places,
    require_finished,
    told_signals,
    unfinished_sites,
)


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


def expect_directions(sae: SparseAutoencoder, site: Site) -> None:
    """InputError unless concept vectors of `sae` can be added to what the site gives, as they stand."""
    if sae.config.transcoder:
        raise InputError(f"The SAE of {site.slug} is a transcoder: its concept vectors belong to another place.")
    if sae.config.scaled or sae.config.time_dim:
        raise InputError(
            f"The SAE of {site.slug} scales each channel before encoding, by its timestep or once and for all; it can "
            "be labelled, not steered with."
        )
    if sae.config.normalise != "none":
        raise InputError(
            f"The SAE of {site.slug} normalises each vector ({sae.config.normalise}), so that its concept vectors have "
            "no length in the model's own units; it can be labelled, not steered with."
        )


def load_site_saes(
    saes: SaeSource,
    sites: Iterable[Site],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    signal: str = "",
) -> dict[Site, SparseAutoencoder]:
    """The autoencoders of these sites; one that serves several is loaded once and stands at each of them.

    Args:
        saes: a folder with one folder a site (`Site.slug`), or patterns of sites with what serves them.
        signal: what those that do not say it read of a block: ``update`` (output minus input), ``output`` or ``input``;
            a pattern of `saes` that names a signal says it for its own sites (`told_signals`).

    Raises:
        InputError: some are missing (all named), or one is broken, or says that it belongs to something else
            (`expect_site`).
    """
    wanted = sorted(set(sites))
    require_finished(saes, wanted)
    told = told_signals(saes, wanted, signal)
    loaded: dict[Path | str, tuple[SparseAutoencoder, dict[str, Any]]] = {}
    by_site: dict[Site, SparseAutoencoder] = {}
    for site, place in places(saes, wanted).items():
        if place not in loaded:
            loaded[place] = load_pretrained(place, device, dtype)
        sae, config = loaded[place]
        expect_site(config, site, place, told[site], mapped=isinstance(saes, Mapping))
        sae.signal = site.signal
        by_site[site] = sae
    return by_site


def check_weights(saes: SaeSource, sites: Iterable[Site], fetch: bool = True) -> int:
    """Read what autoencoders of these sites are there, one after the other, and keep none.

    Args:
        fetch: those of a hub too.

    Returns:
        how many of the sites have one that was read.

    Raises:
        InputError: weights that are missing, cut short, not finite or not as they are said to be.
    """
    wanted = sorted(set(sites))
    lacking = set(unfinished_sites(saes, wanted))
    where = {site: place for site, place in places(saes, wanted).items() if site.slug not in lacking}
    read = [place for place in where.values() if fetch or isinstance(place, Path)]
    for place in dict.fromkeys(read):
        read_folder(place)
    return len(read)


def other_model(saes: SaeSource, sites: Iterable[Site], path: str, digest: str) -> str:
    """One sentence where autoencoders say that they were trained on another model than they are to listen to.

    What says nothing of its model, and a hub's name beside the digest of files, cannot be compared.

    Args:
        path: of the model.
        digest: of its files, or its name where it is a hub's (`gazetteer.data.core.digests.digest_path`).

    Returns:
        the sentence; empty where there is nothing to say.
    """
    wanted = sorted(set(sites))
    where, others = places(saes, wanted), dict[str, list[Path | str]]()
    for site, config in configs(saes, wanted).items():
        stated = config.get("model_digest")
        if isinstance(stated, str) and stated and stated != digest and _hashed(stated) == _hashed(digest):
            others.setdefault(stated, []).append(where[site])
    if not others:
        return ""
    count, stated = sum(map(len, others.values())), next(iter(others))
    here = f"{path} ({digest[:19]}…)" if _hashed(digest) else path
    return (
        f"the SAEs of {count} of {len(wanted)} sites say that they were trained on another model than {here}, the one "
        f"that is labelled: {others[stated][0]} on {stated[:19] + '…' if _hashed(stated) else stated}. Of an edited "
        "copy of that model this is as it should be; of any other their features mean something else"
    )


def _hashed(digest: str) -> bool:
    return digest.startswith("sha256:")


def expect_site(
    config: Mapping[str, Any], site: Site, place: Path | str, signal: str = "", mapped: bool = False
) -> None:
    """Compare what an autoencoder says of its input with the site that it is to serve.

    Args:
        config: of `read_config`: ``signal``, ``site`` of ours, ``block`` and ``stream`` of others.
        place: where it lies, for the sentence.
        signal: what it reads where it does not say it.
        mapped: its user gave it to this site by a pattern; then branch and t may be others than its own.

    Raises:
        InputError: it reads another signal, stream or block, belongs to another site, or does not say what it reads.
    """
    own = _stated_site(config, Path(place))
    here = own is None or own.slug == site.slug or (mapped and own.port == site.port)
    if own is not None and not here:
        advice = f"; it serves its own block: {at_its_block(place, *own.port)}" if mapped else ""
        raise InputError(
            f"The SAE in {place} was trained at {own.slug}{', not at ' + site.slug if mapped else ''}{advice}."
        )
    if config.get("block") not in (None, site.block):
        raise InputError(f"The SAE in {place} says that it was trained at {config['block']}, not at {site.block}.")
    if config.get("stream") not in (None, site.stream):
        raise InputError(f"The SAE in {place} says that it reads the {config['stream']} stream, not the {site.stream}.")
    stated = config.get("signal", "update") or signal
    gives = "update (output minus input)" if site.signal == "update" else site.signal
    if not stated:
        raise InputError(
            f"The SAE in {place} does not say what it reads, and {site.slug} gives a block's {gives}. Some published "
            "ones read updates and others (SAeUron, SAEmnesia) outputs, and with the wrong one every feature would be "
            f"wrong; if this one was trained on the {site.signal}, say so with sae_check.signal={site.signal}; where "
            f'others read something else, by its pattern: saes={{"*-{site.signal}": "{place}"}}.'
        )
    if stated != site.signal:
        raise InputError(
            f"The SAE in {place} reads a block's {stated}, and {site.slug} gives its {gives}: listen to the {stated} "
            f"there (generation.signals), or name an SAE of the {site.signal}."
        )
