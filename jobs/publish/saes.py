"""The autoencoders behind a run, as a repository of their own with a model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_regular
from gazetteer.jobs.label.card import TAGS

_SHIPPED = frozenset({".json", ".safetensors", ".md", ".txt"})


@dataclass(frozen=True)
class SaeBundle:
    """The files of a folder of autoencoders, with a card; satisfies `hub.Publication`.

    Attributes:
        folder: one sub-folder a site.
        card: ``README.md``.
    """

    folder: Path
    card: bytes

    @property
    def names(self) -> list[str]:
        """Every name, sorted; the card last."""
        files = (path for path in sorted(self.folder.rglob("*")) if path.is_file() and path.suffix in _SHIPPED)
        return [*(path.relative_to(self.folder).as_posix() for path in files if path.name != "README.md"), "README.md"]

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
        folder: what the run's ``saes`` named.
        fingerprint, config: of the run.
        license: identifier of the hub, or empty.
        data: address of the published tables.
        where: what `SparseAutoencoder.from_pretrained` finds them under: a folder or a repository.

    Raises:
        InputError: no such folder, or other autoencoders than the run's.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"--saes {folder} is no folder.")
    if digest_path(str(root)) != fingerprint.get("saes"):
        raise InputError(f"--saes {folder} does not hold the autoencoders that the run was labelled with.")
    sites = sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("config.json"))
    return SaeBundle(root, _card(sites, config, license, data, where).encode())


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
        f'("{where}/{sites[0] if sites else "SITE"}")\n```\n'
    )
