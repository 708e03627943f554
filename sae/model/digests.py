"""Content digests of autoencoders: of all files that are read of one, whichever of them was named."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gazetteer.data.core.digests import digest_file, digest_json, digest_path
from gazetteer.data.core.errors import InputError


def digest_sae(path: str) -> str:
    """`digest_path`, but of a file whose format reads others beside it the digest of a folder of them alone.

    Of files that are read otherwise than they once were (`Format.revision`) it is another one than it once was.

    Raises:
        InputError: as `digest_path`, or a file that is broken.
    """
    digest = digest_path(path)  # which says what cannot be read
    if os.path.isfile(path):
        from gazetteer.sae.formats.registry import recognise  # loads torch

        known = recognise(Path(path))
        files = known.files(Path(path)) if known else []
        if len(files) > 1:
            digest = f"sha256:{digest_json([[file.name, digest_file(file)] for file in sorted(files)])}"
    revisions = _revisions(Path(path))
    return f"sha256:{digest_json([digest, revisions])}" if revisions else digest


def _revisions(path: Path) -> dict[str, str]:
    """By their place below the path the revisions of an autoencoder, or of a folder with one folder a site."""
    folders = [path, *sorted(own for own in path.iterdir() if own.is_dir())] if path.is_dir() else [path]
    maybe = [place for place in folders if place.is_file() or any(place.glob("*.pt"))]
    if not maybe:
        return {}
    from gazetteer.sae.formats.registry import recognise  # loads torch

    revisions = {}
    for place in maybe:
        known = recognise(place)
        weights = known.find(place) if known else None
        if known and weights and (revision := known.revision(weights)):
            revisions[place.relative_to(path).as_posix()] = revision
    return revisions


def digest_saes(value: str | Mapping[str, str]) -> str | dict[str, str]:
    """`digest_sae` of a path, or of every path of a mapping; raises as it does."""
    return digest_sae(value) if isinstance(value, str) else {name: digest_sae(path) for name, path in value.items()}


def as_recorded(place: str, recorded: object) -> str | dict[str, str] | None:
    """How `place` holds the autoencoders of which a run recorded the digests: by the mapping's patterns if it was one.

    Args:
        place: an autoencoder, or a folder of some; of a mapping to several, the folder that they lie in.
        recorded: of `digest_saes`.

    Returns:
        what serves as ``saes``; None where autoencoders that were recorded are not there.
    """
    if not isinstance(recorded, Mapping):
        return place if digest_sae(place) == recorded else None
    known = {digest_sae(place): place}
    if not set(recorded.values()) <= known.keys() and os.path.isdir(place):
        for name in sorted(name for name in os.listdir(place) if not name.startswith(".")):
            with suppress(InputError):  # an empty folder, or what is none
                known[digest_sae(os.path.join(place, name))] = os.path.join(place, name)
    if not set(recorded.values()) <= known.keys():
        return None
    return {pattern: known[digest] for pattern, digest in recorded.items()}
