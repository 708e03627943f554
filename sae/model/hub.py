"""Where an autoencoder's folder or file is: on this machine or, when it is not, in the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.model_files import why_not_loaded

# The files that any readable format consists of; nothing else of a repository is fetched.
WANTED = (
    "config.json",
    "cfg.json",
    "model.safetensors",
    "sae.safetensors",
    "sae_weights.safetensors",
    "activation_scaler.json",
    "state_dict.pth",
    "ae.pt",
    "sae.pt",
    "weights.pt",
    "n_images_*.pt",
)

SUFFIXES = frozenset({".pt", ".pth", ".safetensors"})
"""Of a hub id that names one file instead of a folder."""


BESIDE = tuple(name for name in WANTED if name.endswith(".json"))
"""What formats read beside a file that is named itself."""

_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/([\w./-]+))?(?:@([\w./-]+))?")


def is_hub_id(name: str) -> bool:
    """Whether a name may be a hub's: a path that begins with a slash or a dot is none."""
    return _ID.fullmatch(name) is not None


def local_folder(name: Path | str) -> Path:
    """The folder or file of a path or a hub id ``owner/repository[/folder or file][@revision]``.

    A folder or file that exists here always goes first. A `Path` is never looked for in the hub.

    Raises:
        InputError: the id is of no repository, the repository has no such file, or the hub cannot be reached.
    """
    path = Path(name)
    match = _ID.fullmatch(str(name))
    if isinstance(name, Path) or path.exists() or match is None:
        return path
    repository, folder, revision = match.groups()
    from huggingface_hub import snapshot_download  # heavy, and not needed for folders

    inside = (folder or "").strip("/")
    single = Path(inside).suffix in SUFFIXES
    folder = inside.rpartition("/")[0] if single else inside
    names = BESIDE if single else WANTED
    wanted = [*([inside] if single else []), *(f"{folder}/{file}" if folder else file for file in names)]
    try:
        root = snapshot_download(repository, revision=revision, allow_patterns=wanted)
    except (OSError, ValueError) as error:
        reason = why_not_loaded("SAE", repository, error)
        what = "SAE" if single else "SAE folder"
        raise InputError(f"There is no {what} {name}. {reason}") from error
    if single and not (Path(root) / inside).is_file():
        raise InputError(f"There is no SAE {name}. The copy of {repository} on this machine has no file {inside}.")
    return Path(root) / inside
