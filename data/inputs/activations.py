"""Activation shards: the dense vectors that autoencoders are trained on, written once and read memory-mapped.

Layout of a set, one folder::

    ROOT/sites.json                   the format and the sites of the set, written first
    ROOT/<site.slug>/<shard>.safetensors    ``vectors``, float16 [vectors, d], image-major: the cells of image 0, 1, …
    ROOT/_shards/<shard>.json               written last: a shard exists if and only if this record does

A record holds the shard's image ids, for each site its file's rows, width, bytes and SHA-256, and its own SHA-256;
where images differ in their vectors, as in the words of prompts, ``cells`` too, how many each image has. Such a set is
of format 3, for a reader of format 2 would take every image to have the same number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from gazetteer.data.core.digests import digest_bytes, digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.core.files.regular import read_regular
from gazetteer.data.core.sites import TEXT, Site

FORMAT, RAGGED = 2, 3
"""Of sets in which every image has as many vectors as the others, and of those with sites of which that is not so."""


class ActivationWriter:
    """Writes shards of activations; one that is already there is skipped, so a run can simply start again."""

    def __init__(self, root: Path | str, sites: Sequence[Site]) -> None:
        """Open or create the set at `root`.

        Raises:
            InputError: no sites, two of one name, or the set there has other ones, another format, or a damaged index.
        """
        self.root, self.sites = Path(root), sorted(sites)
        slugs = [site.slug for site in self.sites]
        if not slugs:
            raise InputError("An activation set needs at least one site.")
        if len(set(slugs)) < len(slugs):
            twice = next(slug for slug in slugs if slugs.count(slug) > 1)
            raise InputError(f"Two sites of an activation set are called {twice}; t is told apart by two decimals.")
        index = self.root / "sites.json"
        spoken = any(site.stream == TEXT for site in self.sites)
        stated = _json({"format": RAGGED if spoken else FORMAT, "sites": slugs})
        if not index.exists():
            replace_file(index, stated)
            return
        differing = sorted(set(slugs) ^ set(read_sites(self.root)))
        if differing:
            raise InputError(f"The activations in {self.root} are of other sites; differing: {', '.join(differing)}.")
        if index.read_bytes() != stated:  # begun when sets with words stated format 2
            replace_file(index, stated)

    def finished(self, shard_id: str) -> bool:
        """Whether this shard is complete."""
        return self._record(shard_id).exists()

    def add(
        self,
        shard_id: str,
        vectors: Mapping[Site, np.ndarray],
        image_ids: Sequence[str],
        cells: Mapping[Site, Sequence[int]] | None = None,
    ) -> bool:
        """Publish one shard: its files first, then the record that makes it exist.

        Args:
            shard_id: letters, digits, ``.``, ``_`` and ``-``.
            vectors: for every site of the set, [images · cells, d] in the order of `image_ids`; stored as
            float16.
            image_ids: the shard's images; they decide which vectors are held out.
            cells: rows of each image at the sites where images differ in them (words of prompts).

        Returns:
            False when the shard was already there, and nothing was written.

        Raises:
            InputError: sites missing or unknown, rows that do not divide among the images, values that are
            not finite in float16, or a bad shard id.
        """
        if self.finished(shard_id):
            return False
        if set(vectors) != set(self.sites):
            differing = sorted(site.slug for site in set(vectors) ^ set(self.sites))
            raise InputError(f"Shard {shard_id} must hold the sites of the set; differing: {', '.join(differing)}.")
        own = {site: [int(count) for count in (cells or {}).get(site, ())] for site in self.sites}
        files = {s.slug: self._write(shard_id, s, vectors[s], len(image_ids), own[s]) for s in self.sites}
        stated = RAGGED if any("cells" in file for file in files.values()) else FORMAT
        record = {"format": stated, "shard": shard_id, "image_ids": list(image_ids), "sites": files}
        replace_file(self._record(shard_id), _json(record | {"sha256": digest_json(record)}))
        return True

    def _record(self, shard_id: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", shard_id):
            raise InputError(f"{shard_id!r} cannot name a shard; use letters, digits, '.', '_' and '-'.")
        return self.root / "_shards" / f"{shard_id}.json"

    def _write(self, shard_id: str, site: Site, vectors: np.ndarray, images: int, cells: list[int]) -> dict[str, Any]:
        fits = len(vectors) == sum(cells) if len(cells) == images else len(vectors) % max(images, 1) == 0
        if vectors.ndim != 2 or images < 1 or len(vectors) < 1 or len(cells) not in (0, images) or not fits:
            raise InputError(
                f"Shard {shard_id} at {site.slug}: an array {list(vectors.shape)} does not hold "
                f"the {'vectors' if cells else 'same number of vectors'} of each of {images} images."
            )
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(vectors, dtype=np.float16)
        if not np.isfinite(half).all():
            raise InputError(f"Shard {shard_id} at {site.slug} holds values that are not finite in float16.")
        content = safetensors_bytes({"vectors": half})
        replace_file(self.root / site.slug / f"{shard_id}.safetensors", content)
        rows, d = half.shape
        file = {"rows": rows, "d": d, "bytes": len(content), "sha256": digest_bytes(content)}
        return file | ({"cells": cells} if len(set(cells)) > 1 else {})


def read_sites(root: Path) -> list[str]:
    """The slugs that the set's index states; raises InputError when it is damaged or of another format."""
    path = root / "sites.json"
    index = _read_json(path)
    stated = index.get("format")
    if stated not in (FORMAT, RAGGED):
        raise InputError(
            f"{path} states format {stated}; this version reads {FORMAT} and {RAGGED}. Capture into another folder."
        )
    sites = index.get("sites")
    if not isinstance(sites, list) or not all(isinstance(slug, str) for slug in sites):
        raise InputError(f"{path} names no sites; it is damaged.")
    return sites


def read_record(path: Path) -> dict[str, Any]:
    """A shard's record as it was written; raises InputError when it is not."""
    record = _read_json(path)
    try:
        whole = record.pop("sha256", None) == digest_json(record)
    except ValueError:  # a number out of range, which no writer wrote
        whole = False
    if not whole or not _fits(record, path.stem):
        raise InputError(f"{path} is not what was written; it is damaged. Delete it to redo the shard.")
    return record


def _fits(record: dict[str, Any], shard_id: str) -> bool:
    """Whether a record says what a record says, of the shard that its own name is."""
    try:
        files = record["sites"].values()
        counts = [file[name] for file in files for name in ("rows", "d", "bytes")]
        return (
            record["shard"] == shard_id
            and all(isinstance(image_id, str) for image_id in record["image_ids"])
            and all(isinstance(count, int) and count > 0 for count in counts)
            and all(len(file.get("cells", record["image_ids"])) == len(record["image_ids"]) for file in files)
            and all(sum(file["cells"]) == file["rows"] for file in files if "cells" in file)
            and all(isinstance(file["sha256"], str) for file in files)
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON; it is damaged.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold an object; it is damaged.")
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
