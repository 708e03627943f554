"""Content digests of autoencoders: of all files that are read of one, whichever of them was named."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gazetteer.data.core.digests import digest_file, digest_json, digest_path


def digest_sae(path: str) -> str:
    """`digest_path`, but of a file whose format reads others beside it the digest of a folder of them alone.

    Raises:
        InputError: as `digest_path`.
    """
    digest = digest_path(path)  # which says what cannot be read
    if os.path.isfile(path):
        from gazetteer.sae.formats.registry import recognise  # loads torch

        known = recognise(Path(path))
        files = known.files(Path(path)) if known else []
        if len(files) > 1:
            return f"sha256:{digest_json([[file.name, digest_file(file)] for file in sorted(files)])}"
    return digest


def digest_saes(value: str | Mapping[str, str]) -> str | dict[str, str]:
    """`digest_sae` of a path, or of every path of a mapping; raises as it does."""
    return digest_sae(value) if isinstance(value, str) else {name: digest_sae(path) for name, path in value.items()}
