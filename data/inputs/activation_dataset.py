"""Activations to train on: the vectors of one site, memory-mapped, whole images held out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gazetteer.data.core.digests import digest_file, digest_json
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.shuffle import shuffled_indices
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.activations import FORMAT, read_record, read_sites

SPLITS = ("train", "heldout", "all")
HELDOUT_SHARE = 0.05


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
        heldout_fraction: float = HELDOUT_SHARE,
        verify: bool = True,
        shards: Collection[str] | None = None,
    ) -> None:
        """Open a site of the set at `root`.

        Args:
            split: ``train``, ``heldout`` (whole images, by a hash of their id; at least one) or ``all``.
            heldout_fraction: of the images held out.
            verify: read every file once to compare its SHA-256; otherwise its size alone is checked.
            shards: these, all of which have to be there; None: all that lie there, whatever model and prompts each is
                of.

        Raises:
            InputError: no set or no such site there, a shard that is missing, truncated or damaged (named),
                an unknown split, or a split without vectors.
        """
        if split not in SPLITS:
            raise InputError(f"Unknown split {split!r}; accepted: {', '.join(SPLITS)}.")
        self.site = site
        self.records = _records(Path(root), site, shards)
        self._arrays = [_open(Path(root), site, record, verify) for record in self.records]
        self.d = int(self._arrays[0].shape[1])
        for record, array in zip(self.records, self._arrays, strict=True):
            if array.shape[1] != self.d:
                raise InputError(f"Shard {record['shard']} at {site.slug} is {array.shape[1]} wide, others {self.d}.")
        self._select(split, heldout_fraction)
        self.vectors = int(self._ends[-1]) if len(self._ends) else 0
        if self.vectors == 0:
            raise InputError(f"The {split} split of the activations in {root} is empty; capture more pictures.")
        hashes = [record["sites"][site.slug]["sha256"] for record in self.records]
        self.digest = digest_json([FORMAT, split, heldout_fraction, hashes])

    def _select(self, split: str, fraction: float) -> None:
        """Lay the split's images end to end: which shard, its first row there, and where it ends here."""
        ids = [image_id for record in self.records for image_id in record["image_ids"]]
        chosen = _split_mask(ids, split, fraction)
        shards, starts, cells = [], [], []
        for number, record in enumerate(self.records):
            images, file = len(record["image_ids"]), record["sites"][self.site.slug]
            each = np.array(file.get("cells") or [file["rows"] // images] * images, dtype=np.int64)
            shards.append(np.full(images, number))
            starts.append(np.cumsum(each) - each)
            cells.append(each)
        self.image_ids = [image_id for image_id, wanted in zip(ids, chosen, strict=True) if wanted]
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


def heldout_images(image_ids: Sequence[str], fraction: float = HELDOUT_SHARE) -> set[str]:
    """Those of the images that an `ActivationDataset` of them all would hold out."""
    mask = _split_mask(image_ids, "heldout", fraction)
    return {image_id for image_id, out in zip(image_ids, mask, strict=True) if out}


def _split_mask(image_ids: Sequence[str], split: str, fraction: float) -> np.ndarray:
    """Which images belong to `split`: bool [images]; an image's place depends on its id alone, save that the
    one with the smallest hash is always held out, so that a small set has something to measure on."""
    if split == "all" or not image_ids:
        return np.ones(len(image_ids), dtype=bool)
    digests = (hashlib.sha256(image_id.encode()).digest() for image_id in image_ids)
    hashes = np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64) / 2.0**64
    heldout = (hashes < fraction) | (hashes == hashes.min())
    return heldout if split == "heldout" else ~heldout


def _records(root: Path, site: Site, shards: Collection[str] | None) -> list[dict[str, Any]]:
    """The records of the shards, sorted by name."""
    if not (root / "sites.json").exists():
        raise InputError(f"There are no activations in {root}: it has no sites.json.")
    slugs = read_sites(root)
    if site.slug not in slugs:
        raise InputError(f"The activations in {root} have no site {site.slug}; they have {', '.join(slugs)}.")
    paths = sorted((root / "_shards").glob("*.json"))
    missing = sorted(set(shards or ()) - {path.stem for path in paths})
    if missing:
        raise InputError(
            f"The activations in {root} lack {len(missing)} of the {len(set(shards or ()))} shards wanted, the first "
            f"{missing[0]}; run the same command again: it captures them."
        )
    records = [read_record(path) for path in paths if shards is None or path.stem in shards]
    if not records:
        raise InputError(f"The activations in {root} have no finished shard yet.")
    return records


def _open(root: Path, site: Site, record: Mapping[str, Any], verify: bool) -> np.ndarray:
    """Memory-map one file, float16 [rows, d], after checking it against its record."""
    path, stated = root / site.slug / f"{record['shard']}.safetensors", record["sites"][site.slug]
    redo = f"delete its record in {root / '_shards'} to redo it."
    if not path.is_file():
        raise InputError(f"Activation shard {path} is missing; {redo}")
    if path.stat().st_size == stated["bytes"] and (not verify or digest_file(path) == stated["sha256"]):
        # TypeError: of types that numpy does not know, such as the 8-bit floats.
        with suppress(SafetensorError, TypeError), safe_open(path, framework="pt") as file:
            # A view of the mapped file: a row is read when it is asked for.
            array: np.ndarray = file.get_tensor("vectors").numpy()
            if array.dtype == np.float16 and array.shape == (stated["rows"], stated["d"]):
                return array
    raise InputError(f"Activation shard {path} is damaged (not the {stated['bytes']} bytes that were written); {redo}")
