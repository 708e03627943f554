"""Activation shards: the dense vectors that autoencoders are trained on, written once and read memory-mapped.

Layout of a set, one folder::

    ROOT/sites.json                   the sites of the set, written first
    ROOT/<site.slug>/<shard>.safetensors    ``vectors``, float16 [vectors, d], image-major: the cells of image 0, 1, …
    ROOT/_shards/<shard>.json               written last: a shard exists if and only if this record does

A record holds the shard's image ids, for each site its file's rows, width, bytes and SHA-256, and its own SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes
from torch import Tensor

from gazetteer.data.core.digests import digest_bytes, digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.shuffle import shuffled_indices
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.files import write_errors

FORMAT = 2
SPLITS = ("train", "heldout", "all")
HELDOUT_SHARE = 0.05


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either all of it or what it held before.

    One writer a path: the caller keeps others away (the jobs hold the lock of the run). What a killed writer
    leaves behind has a fixed name, so that the next one writes over it.

    Raises:
        GazetteerError: no space, or no permission.
    """
    with replaced_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """As `replace_file`, for content that the block writes to the path it is given; raises as that does."""
    partial = path.with_name(f".{path.name}.partial")
    with write_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)


class ActivationWriter:
    """Writes shards of activations; one that is already there is skipped, so a run can simply start again."""

    def __init__(self, root: Path | str, sites: Sequence[Site]) -> None:
        """Open or create the set at `root`.

        Raises:
            InputError: no sites, or the set there has other ones, another format, or a damaged index.
        """
        self.root, self.sites = Path(root), sorted(sites)
        slugs = [site.slug for site in self.sites]
        if not slugs:
            raise InputError("An activation set needs at least one site.")
        index = self.root / "sites.json"
        if not index.exists():
            replace_file(index, _json({"format": FORMAT, "sites": slugs}))
            return
        differing = sorted(set(slugs) ^ set(_sites(self.root)))
        if differing:
            raise InputError(f"The activations in {self.root} are of other sites; differing: {', '.join(differing)}.")

    def finished(self, shard_id: str) -> bool:
        """Whether this shard is complete."""
        return self._record(shard_id).exists()

    def add(self, shard_id: str, vectors: Mapping[Site, np.ndarray], image_ids: Sequence[str]) -> bool:
        """Publish one shard: its files first, then the record that makes it exist.

        Args:
            shard_id: letters, digits, ``.``, ``_`` and ``-``.
            vectors: for every site of the set, [images · cells, d] in the order of `image_ids`; stored as
            float16.
            image_ids: the shard's images; they decide which vectors are held out.

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
        files = {site.slug: self._write(shard_id, site, vectors[site], len(image_ids)) for site in self.sites}
        record = {"format": FORMAT, "shard": shard_id, "image_ids": list(image_ids), "sites": files}
        replace_file(self._record(shard_id), _json(record | {"sha256": digest_json(record)}))
        return True

    def _record(self, shard_id: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", shard_id):
            raise InputError(f"{shard_id!r} cannot name a shard; use letters, digits, '.', '_' and '-'.")
        return self.root / "_shards" / f"{shard_id}.json"

    def _write(self, shard_id: str, site: Site, vectors: np.ndarray, images: int) -> dict[str, Any]:
        if vectors.ndim != 2 or images < 1 or len(vectors) < 1 or len(vectors) % images:
            raise InputError(
                f"Shard {shard_id} at {site.slug}: an array {list(vectors.shape)} does not hold "
                f"the same number of vectors for each of {images} images."
            )
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(vectors, dtype=np.float16)
        if not np.isfinite(half).all():
            raise InputError(f"Shard {shard_id} at {site.slug} holds values that are not finite in float16.")
        content = safetensors_bytes({"vectors": half})
        replace_file(self.root / site.slug / f"{shard_id}.safetensors", content)
        rows, d = half.shape
        return {"rows": rows, "d": d, "bytes": len(content), "sha256": digest_bytes(content)}


class ActivationDataset:
    """The vectors of one site, memory-mapped; a `VectorSource` for training.

    Memory: the pages of the files that are in use, 24 bytes an image, and a batch: the shuffle keeps no table of its
    order. A batch gathers rows at random: made for sets that fit the page cache or lie on a fast disk.

    Attributes:
        d: width of a vector.
        vectors: how many this split holds.
        digest: SHA-256 over the digests of the files and the split.
    """

    def __init__(
        self,
        root: Path | str,
        site: Site,
        split: str = "train",
        heldout_share: float = HELDOUT_SHARE,
        verify: bool = True,
    ) -> None:
        """Open a site of the set at `root`.

        Args:
            split: ``train``, ``heldout`` (whole images, by a hash of their id; at least one) or ``all``.
            heldout_share: share of the images held out.
            verify: read every file once to compare its SHA-256; otherwise its size alone is checked.

        Raises:
            InputError: no set or no such site there, a shard that is missing, truncated or damaged (named),
                an unknown split, or a split without vectors.
        """
        if split not in SPLITS:
            raise InputError(f"Unknown split {split!r}; accepted: {', '.join(SPLITS)}.")
        self.site = site
        self.records = _records(Path(root), site)
        self._arrays = [_open(Path(root), site, record, verify) for record in self.records]
        self.d = int(self._arrays[0].shape[1])
        for record, array in zip(self.records, self._arrays, strict=True):
            if array.shape[1] != self.d:
                raise InputError(f"Shard {record['shard']} at {site.slug} is {array.shape[1]} wide, others {self.d}.")
        self._select(split, heldout_share)
        self.vectors = int(self._ends[-1]) if len(self._ends) else 0
        if self.vectors == 0:
            raise InputError(f"The {split} split of the activations in {root} is empty; capture more pictures.")
        hashes = [record["sites"][site.slug]["sha256"] for record in self.records]
        self.digest = digest_json([FORMAT, split, heldout_share, hashes])

    def _select(self, split: str, share: float) -> None:
        """Lay the split's images end to end: which shard, its first row there, and where it ends here."""
        ids = [image_id for record in self.records for image_id in record["image_ids"]]
        chosen = _split_mask(ids, split, share)
        shards, starts, cells = [], [], []
        for number, record in enumerate(self.records):
            images = len(record["image_ids"])
            each = record["sites"][self.site.slug]["rows"] // images
            shards.append(np.full(images, number))
            starts.append(np.arange(images) * each)
            cells.append(np.full(images, each))
        self.image_ids = [image_id for image_id, kept in zip(ids, chosen, strict=True) if kept]
        self._shard = np.concatenate(shards)[chosen]
        self._start = np.concatenate(starts)[chosen]
        self._cells = np.concatenate(cells)[chosen]
        self._ends = np.cumsum(self._cells)

    def gather(self, indices: np.ndarray) -> Tensor:
        """Vectors by their number in this split: int64 [batch] -> float32 [batch, d]."""
        image = np.searchsorted(self._ends, indices, side="right")
        row = self._start[image] + indices - (self._ends[image] - self._cells[image])
        shard = self._shard[image]
        # Filled through a view of a tensor: torch aligns its memory the same way every time, and the last bit
        # of a matrix product may depend on that.
        out = torch.empty(len(indices), self.d)
        view = out.numpy()
        order = np.argsort(shard, kind="stable")
        borders = np.searchsorted(shard[order], np.arange(len(self._arrays) + 1))
        for number in np.flatnonzero(np.diff(borders)):
            places = order[borders[number] : borders[number + 1]]
            view[places] = self._arrays[number][row[places]]
        return out

    def batches(self, batch_size: int, seed: int, start_step: int = 0, epochs: int | None = None) -> Iterator[Tensor]:
        """Float32 [batch_size, d]: all vectors of the split shuffled together (see `shuffled_indices`)."""
        for indices in shuffled_indices(self.vectors, batch_size, seed, start_step, epochs):
            yield self.gather(indices)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Float32 [up to batch_size, d], each vector once, in stored order."""
        for start in range(0, self.vectors, batch_size):
            yield self.gather(np.arange(start, min(start + batch_size, self.vectors)))


def heldout_images(image_ids: Sequence[str], share: float = HELDOUT_SHARE) -> set[str]:
    """Those of the images that an `ActivationDataset` of them all would hold out."""
    mask = _split_mask(image_ids, "heldout", share)
    return {image_id for image_id, out in zip(image_ids, mask, strict=True) if out}


def _split_mask(image_ids: Sequence[str], split: str, share: float) -> np.ndarray:
    """Which images belong to `split`: bool [images]; an image's place depends on its id alone, save that the
    one with the smallest hash is always held out, so that a small set has something to measure on."""
    if split == "all" or not image_ids:
        return np.ones(len(image_ids), dtype=bool)
    digests = (hashlib.sha256(image_id.encode()).digest() for image_id in image_ids)
    hashes = np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64) / 2.0**64
    heldout = (hashes < share) | (hashes == hashes.min())
    return heldout if split == "heldout" else ~heldout


def _records(root: Path, site: Site) -> list[dict[str, Any]]:
    """The records of all shards, sorted by name."""
    if not (root / "sites.json").exists():
        raise InputError(f"There are no activations in {root}: it has no sites.json.")
    slugs = _sites(root)
    if site.slug not in slugs:
        raise InputError(f"The activations in {root} have no site {site.slug}; they have {', '.join(slugs)}.")
    records = [_record(path) for path in sorted((root / "_shards").glob("*.json"))]
    if not records:
        raise InputError(f"The activations in {root} have no finished shard yet.")
    return records


def _sites(root: Path) -> list[str]:
    """The slugs that the set's index states; raises InputError when it is damaged or of another format."""
    path = root / "sites.json"
    index = _read_json(path)
    stated = index.get("format")
    if stated != FORMAT:
        raise InputError(f"{path} states format {stated}; this version reads {FORMAT}. Capture into another folder.")
    sites = index.get("sites")
    if not isinstance(sites, list) or not all(isinstance(slug, str) for slug in sites):
        raise InputError(f"{path} names no sites; it is damaged.")
    return sites


def _record(path: Path) -> dict[str, Any]:
    """A shard's record as it was written; raises InputError when it is not."""
    record = _read_json(path)
    try:
        whole = record.pop("sha256", None) == digest_json(record)
    except ValueError:  # a number out of range, which no writer wrote
        whole = False
    if not whole:
        raise InputError(f"{path} is not what was written; it is damaged. Delete it to redo the shard.")
    return record


def _open(root: Path, site: Site, record: Mapping[str, Any], verify: bool) -> np.ndarray:
    """Memory-map one file, float16 [rows, d], after checking it against its record."""
    path, stated = root / site.slug / f"{record['shard']}.safetensors", record["sites"][site.slug]
    redo = f"delete its record in {root / '_shards'} to redo it."
    if not path.exists():
        raise InputError(f"Activation shard {path} is missing; {redo}")
    if path.stat().st_size == stated["bytes"] and (not verify or _sha256(path) == stated["sha256"]):
        with suppress(SafetensorError), safe_open(path, framework="pt") as file:
            # A view of the mapped file: a row is read when it is asked for.
            array: np.ndarray = file.get_tensor("vectors").numpy()
            if array.dtype == np.float16 and array.shape == (stated["rows"], stated["d"]):
                return array
    raise InputError(f"Activation shard {path} is damaged (not the {stated['bytes']} bytes that were written); {redo}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON; it is damaged.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold an object; it is damaged.")
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
