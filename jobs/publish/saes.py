"""The autoencoders behind a run, as a repository of their own with a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gazetteer.data.core.digests import files_below
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_regular
from gazetteer.jobs.label.card import MARK, TAGS, is_card
from gazetteer.sae.formats.registry import recognise
from gazetteer.sae.model.digests import as_recorded
from gazetteer.sae.model.files import CONFIG, WEIGHTS

_BESIDE = frozenset({".json", ".safetensors", ".md", ".txt"})
"""What is shipped beside the weights, which every format calls otherwise."""
_HEAD = "---\nlibrary_name: gazetteer\n"
_STATED = (CONFIG, "cfg.json")


@dataclass(frozen=True)
class SaeBundle:
    """The files of a folder of autoencoders, with a card; satisfies `publication.Publication`.

    Attributes:
        folder: one sub-folder a site.
        card: ``README.md``.
        weights: files of weights, whatever they are called.
    """

    folder: Path
    card: bytes
    weights: frozenset[Path] = frozenset()

    @property
    def names(self) -> list[str]:
        """Every name, sorted; the card last."""
        below = sorted(files_below(self.folder))
        files = (path for path in below if path.suffix in _BESIDE or path in self.weights)
        return [*(path.relative_to(self.folder).as_posix() for path in files if path.name != "README.md"), "README.md"]

    @property
    def own(self) -> dict[str, Callable[[bytes], bool]]:
        """The card, and how ours are known."""
        return {"README.md": is_sae_card}

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self.card if name == "README.md" else read_regular(self.folder / name)


def sae_bundle(
    folder: str | Path,
    fingerprint: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    license: str,
    data: str,
    where: str,
) -> SaeBundle:
    """The autoencoders that a run was labelled with, ready to publish.

    Args:
        folder: what the run's ``saes`` named, or the folder of what several patterns named.
        fingerprint, config: of the run.
        license: identifier of the hub, or empty.
        data: address of the published tables.
        where: what `SparseAutoencoder.from_pretrained` finds them under: a folder or a repository.

    Raises:
        InputError: no such folder, other autoencoders than the run's, or a site without its weights.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"--saes {folder} is no folder.")
    recorded = fingerprint.get("saes")
    source = as_recorded(str(root), recorded)
    if source is None:
        several = f" (several: {', '.join(recorded)})" if isinstance(recorded, Mapping) and len(recorded) > 1 else ""
        raise InputError(f"--saes {folder} does not hold the autoencoders that the run was labelled with{several}.")
    weights = _weights(root)
    served = [Path(place) for place in ([source] if isinstance(source, str) else source.values())]
    others = [file for file in weights if not any(place in (file, *file.parents) for place in served)]
    if others:
        raise InputError(f"--saes {folder} holds others than the run's, {min(others)} among them; nothing is sent.")
    sites = sorted({path.parent.relative_to(root).as_posix() for path in weights})
    return SaeBundle(root, _card(sites, config, license, data, where).encode(), weights)


def _weights(root: Path) -> frozenset[Path]:
    """The weights of every autoencoder below a folder, by the format of each.

    Raises:
        InputError: a configuration without weights, or nothing at all.
    """
    weights, bare = set(), []
    for folder in sorted({path.parent for path in files_below(root)}):
        stated, foreign = any((folder / name).is_file() for name in _STATED), recognise(folder)
        file = folder / WEIGHTS if foreign is None else foreign.find(folder)
        if file is not None and file.is_file() and (stated or foreign is not None):
            weights.add(file)
        elif stated:
            bare.append(folder)
    if bare and (bare != [root] or not weights):  # a configuration above all sites may be of something else
        raise InputError(f"{bare[-1]} states an autoencoder, but holds no weights of a known format; nothing is sent.")
    if not weights:
        raise InputError(f"--saes {root} holds no autoencoder of a known format.")
    return frozenset(weights)


def _card(sites: list[str], config: Mapping[str, Any], license: str, data: str, where: str) -> str:
    base = str(config.get("model.path", ""))
    head: dict[str, Any] = {"library_name": "gazetteer", "tags": list(TAGS)}
    head |= {"license": license} if license else {}
    head |= {"base_model": base} if base.count("/") == 1 else {}
    head |= {"datasets": [data.removeprefix("hf:")]} if data.startswith("hf:") else {}
    rows = "\n".join(f"| `{site}` |" for site in sites)
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# Sparse autoencoders of {config['name']}\n\n"
        f"One folder a site of `{base}`: block, branch and t (1.0 the first sampler step, 0.0 the last). What their "
        f"features stand for: {data or 'see the tables published beside them'}.\n\n| site |\n|---|\n{rows}\n\n"
        "```python\nimport gazetteer\n\nsae = gazetteer.SparseAutoencoder.from_pretrained"
        f'("{where}{"" if sites[0] == "." else f"/{sites[0]}"}")\n```\n\n{MARK}\n'
    )


def is_sae_card(readme: bytes) -> bool:
    """Whether a README is a card of autoencoders; those of before had no mark."""
    return is_card(readme) or (readme.startswith(_HEAD.encode()) and b"\n# Sparse autoencoders of " in readme)
