"""Where the autoencoders of sites are: a folder of sites, or a mapping from patterns of sites to autoencoders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.registry import recognise
from gazetteer.sae.model.files import CONFIG, read_config
from gazetteer.sae.model.hub import is_hub_id, local_folder
from gazetteer.sae.model.patterns import ANY, SitePattern, chosen

SaeSource: TypeAlias = str | Path | Mapping[str, str]
"""A folder with one folder a site (`Site.slug`), or patterns of sites (`SitePattern`) with what serves them: an
autoencoder's folder or file, a folder of sites, or a hub id ``owner/repository[/folder or file][@revision]``."""


def places(saes: SaeSource, sites: Iterable[Site]) -> dict[Site, Path | str]:
    """Where the autoencoder of each site is, or should be; sites that no pattern matches are left out.

    Raises:
        InputError: a pattern that cannot be read, two of which neither is more specific for a site, or an address or
            ``~`` in the place of a folder.
    """
    wanted = sorted(set(sites))
    for name in saes.values() if isinstance(saes, Mapping) else [saes]:
        _expect_place(str(name))
    if not isinstance(saes, Mapping):
        return {site: Path(saes) / site.slug for site in wanted}
    nothing = next((pattern for pattern, name in saes.items() if not str(name).strip()), None)
    if nothing is not None:
        raise InputError(f"saes: the pattern {nothing!r} names nothing; accepted: a folder, a file or a hub id.")
    return {site: _served(saes[pattern], site) for site, pattern in chosen(saes, wanted)[0].items()}


def _expect_place(name: str) -> None:
    """InputError for what neither names a place here nor a repository of the hub."""
    if Path(name).exists() or not re.match(r"~|\w+:/", name):
        return
    if name.startswith("~"):
        raise InputError(f"saes: ~ is not expanded in {name}; write the whole path, {os.path.expanduser(name)}.")
    raise InputError(f"saes: {name} is an address; accepted: a folder, a file or a hub id (owner/repository).")


def _served(name: str, site: Site) -> Path | str:
    """What a mapping's value is for a site: itself, or the site's folder in it."""
    path = Path(name)
    if path.exists():
        return path / site.slug if path.is_dir() and not holds_sae(path) else path
    return name


def holds_sae(folder: Path) -> bool:
    """Whether a folder or file is an autoencoder, by its files."""
    return (folder / CONFIG).is_file() or recognise(folder) is not None


def unfinished_sites(saes: SaeSource, sites: Iterable[Site]) -> list[str]:
    """Names of the sites that have no finished autoencoder, sorted; those of a hub count as finished."""
    wanted = sorted(set(sites))
    where = places(saes, wanted)
    return [site.slug for site in wanted if not _finished(where.get(site))]


def _finished(place: Path | str | None) -> bool:
    if isinstance(place, str):
        return is_hub_id(place)
    return place is not None and (place.is_file() or holds_sae(place))


def yet_to_be_made(saes: SaeSource, sites: Iterable[Site]) -> bool:
    """Whether `saes` is where `gazetteer sae train` may still put them: a folder, there or not, that has none yet."""
    wanted = sorted(set(sites))
    if isinstance(saes, Mapping) or Path(saes).is_file() or holds_sae(Path(saes)):
        return False
    return len(unfinished_sites(saes, wanted)) == len(wanted)


def at_its_block(place: Path | str, block: str, stream: str | None, signal: str | None) -> str:
    """How an autoencoder that names its block, and what it hears there, is given to the sites of that block.

    The usual stream and signal are named too: the configuration may have set others. None: it does not say.
    """
    heard = (("streams", stream), ("signals", signal))
    more = "".join(f" 'generation.{key}=[{own}]'" for key, own in heard if own)
    return f"--set 'saes={{\"{block}\": \"{place}\"}}' 'generation.blocks=[{block}]'{more}"


def told_signals(saes: SaeSource, sites: Iterable[Site], signal: str = "") -> dict[Site, str]:
    """What their user says that the autoencoders of the sites read, for those that do not say it themselves.

    Of a mapping, the signal that the pattern names which serves a site; else `signal` (``sae_check.signal``).

    Raises:
        InputError: patterns give one autoencoder to sites of two signals.
    """
    wanted = sorted(set(sites))
    if not isinstance(saes, Mapping):
        return dict.fromkeys(wanted, signal)
    where, told, named = places(saes, wanted), dict.fromkeys(wanted, signal), dict[Path | str, str]()
    for site, pattern in chosen(saes, wanted)[0].items():
        if (own := SitePattern.of(pattern).signal) == ANY:
            continue
        told[site] = own
        if named.setdefault(where[site], own) != own:
            raise InputError(
                f"saes: the patterns give {where[site]} to sites of the {named[where[site]]} and of the {own}, and an "
                "SAE reads one of them."
            )
    return told


def require_finished(saes: SaeSource, sites: Iterable[Site]) -> None:
    """InputError that names the sites without a finished autoencoder, where it was looked for, and what to do."""
    wanted = sorted(set(sites))
    missing = unfinished_sites(saes, wanted)
    if missing:
        said = _help(saes, wanted) if not isinstance(saes, Mapping) else _looked_for(saes, wanted)
        raise InputError(f"{said}: {', '.join(missing)}.")


def require_used(saes: SaeSource, sites: Iterable[Site]) -> None:
    """InputError unless every pattern of a mapping matches one of the sites."""
    wanted = sorted(set(sites))
    idle = chosen(saes, wanted)[1] if isinstance(saes, Mapping) else []
    if idle:
        raise InputError(
            f"saes: the pattern {idle[0]!r} matches none of the sites: {', '.join(site.slug for site in wanted)}."
        )


def _help(root: str | Path, wanted: list[Site]) -> str:
    missing, path, first = unfinished_sites(root, wanted), Path(root), wanted[0].slug
    if path.is_file() or (path.is_dir() and holds_sae(path)):
        config = read_config(path) if holds_sae(path) else {}
        own = config.get("site")
        said = own if isinstance(own, Mapping) else config
        block, stream, signal = said.get("block"), said.get("stream"), said.get("signal") or config.get("signal")
        help = (
            f"it is an SAE itself, of {block}; for the sites of that block: {at_its_block(root, block, stream, signal)}"
            if block
            else f'it is an SAE itself; for every site: --set \'saes={{"*": "{root}"}}\', or a pattern of sites for *'
        )
    elif held := _held(path, wanted):
        help = held
    elif not path.exists():
        help = (
            "there is no such folder; gazetteer sae train --out FOLDER makes one, FOLDER/saes, and one SAE of the hub "
            f'goes by a mapping: saes={{"*": "{root}"}}'
        )
    else:
        help = "gazetteer sae train --out FOLDER makes them, in FOLDER/saes, which saes must name"
    return f"{root} has no SAE for {len(missing)} of {len(wanted)} sites (looked for {path / first} …; {help})"


def _looked_for(saes: Mapping[str, str], wanted: list[Site]) -> str:
    """What a mapping has and lacks."""
    where = places(saes, wanted)
    lacking = [site for site in wanted if not _finished(where.get(site))]
    unmatched = [site for site in lacking if site not in where]
    count = f"saes has no SAE for {len(lacking)} of {len(wanted)} sites"
    if unmatched:
        return f"{count} (its patterns are {', '.join(map(repr, saes))}, of which none matches {unmatched[0].slug})"
    place = Path(where[lacking[0]])
    held = _held(place.parent, [site for site in lacking if where[site] == place.parent / site.slug])
    return f"{count} (looked for {place}{held and f'; of {place.parent}: {held}'})"


def _held(folder: Path, wanted: list[Site]) -> str:
    """What a folder holds that is neither an autoencoder nor has one of these sites; empty where that is not known."""
    if not wanted or not folder.is_dir():
        return ""
    inside = folder / "saes"
    if not unfinished_sites(inside, wanted):
        return f"they are in {inside}: set saes to that folder"
    if any(folder.glob("*.safetensors")):
        return f"it holds weights, but no {CONFIG} that says what they are"
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".pt", ".pth") and recognise(path))
    if not files:
        return ""
    return f"it holds files that are an SAE each ({', '.join(files[:3])}{' …' * (len(files) > 3)}): name one of them"


def configs(saes: SaeSource, sites: Iterable[Site]) -> dict[Site, dict[str, Any]]:
    """What the autoencoder of each site says of itself (`read_config`); each is read once.

    Raises:
        InputError: a site has none, or one that cannot be read.
    """
    wanted = sorted(set(sites))
    require_finished(saes, wanted)
    where, read = places(saes, wanted), {}
    for place in dict.fromkeys(where.values()):
        read[place] = read_config(local_folder(place))
    return {site: read[where[site]] for site in wanted}
