"""Where an autoencoder's folder is: on this machine or, when it is not, in the Hugging Face hub."""

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


def local_folder(name: Path | str) -> Path:
    """The folder of a path or a hub id ``owner/repository[/folder][@revision]``.

    A folder or file that exists here always goes first. A `Path` is never looked for in the hub.

    Raises:
        InputError: the id is of no repository, or the hub cannot be reached.
    """
    path = Path(name)
    match = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/([\w./-]+))?(?:@([\w./-]+))?", str(name))
    if isinstance(name, Path) or path.exists() or match is None:
        return path
    repository, folder, revision = match.groups()
    from huggingface_hub import snapshot_download  # heavy, and not needed for folders

    inside = f"{folder.strip('/')}/" if folder else ""
    try:
        root = snapshot_download(repository, revision=revision, allow_patterns=[inside + file for file in WANTED])
    except (OSError, ValueError) as error:
        reason = why_not_loaded("SAE", repository, error)
        raise InputError(f"There is no SAE folder {name}. {reason}") from error
    return Path(root) / inside
