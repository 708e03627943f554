"""The segments table as maps: where each concept is in each image, pooled to the grids of the sites."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import SparseMap
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.data.tables.schemas import CODES
from gazetteer.data.tables.words import words_said
from gazetteer.labeling.evidence.pooling import Grid, pool_masks
from gazetteer.labeling.evidence.shard_masks import ImageEvidenceInput
from gazetteer.labeling.evidence.site_codes import SiteCodes, rows_by_site

_LISTS = ("feature", "value")


@dataclass(frozen=True)
class ConceptMaps:
    """I images sorted by id, C concepts in sorted order, U unions (image, concept) in that order.

    Attributes:
        image_ids, concepts: names, [I] and [C].
        splits: [I].
        sizes: int64 [I, 2], picture height and width in pixels.
        asked: bool [I, C]; a concept with a segment counts as asked.
        union_image, union_concept: int64 [U].
        pixels: per grid, int32 [U, h * w], pixels of the union in each cell.
        read: bool [I, places], where it is words that lie somewhere: what of the text stream is no padding.
        prompts: int64 [I], equal numbers for pictures that were drawn of one prompt; None where each stands for itself.
    """

    image_ids: tuple[str, ...]
    concepts: tuple[str, ...]
    splits: NDArray[np.str_]
    sizes: NDArray[np.int64]
    asked: NDArray[np.bool_]
    union_image: NDArray[np.int64]
    union_concept: NDArray[np.int64]
    pixels: dict[Grid, NDArray[np.int32]]
    read: NDArray[np.bool_] | None = None
    prompts: NDArray[np.int64] | None = None

    def sizes_in_cells(self, cells: int) -> NDArray[np.int64]:
        """How many of a grid's cells count in each picture, int64 [I]: all, or of the text stream no padding."""
        whole = np.full(len(self.image_ids), cells, np.int64)
        return whole if self.read is None else self.read.sum(axis=1)

    def one_a_prompt(self) -> ConceptMaps:
        """The same with the first picture of each prompt and split, by id, and the others in no split.

        For tests: several pictures of one prompt are alike in what they show and in what fires, so that shuffling them
        one by one would take one witness for many.
        """
        if self.prompts is None:
            return self
        keys = np.stack([self.prompts, np.unique(self.splits, return_inverse=True)[1].ravel()])
        firsts = np.unique(keys, axis=1, return_index=True)[1]
        if len(firsts) == len(self.image_ids):
            return self
        alone = np.zeros(len(self.image_ids), np.bool_)
        alone[firsts] = True
        return replace(self, splits=np.where(alone, self.splits, ""))

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which pictures have a segment of each concept: bool [I, C]."""
        shown = np.zeros(self.asked.shape, np.bool_)
        shown[self.union_image, self.union_concept] = True
        return shown


def image_places(codes: SiteCodes, maps: ConceptMaps) -> NDArray[np.int64]:
    """Where the images of `codes` stand in `maps`: int64 [images of the codes].

    Raises:
        InputError: an image that `maps` lacks.
    """
    place = {name: number for number, name in enumerate(maps.image_ids)}
    missing = [name for name in codes.image_ids if name not in place]
    if missing:
        raise InputError(f"Codes name the image {missing[0]!r}, which the images table lacks.")
    return np.array([place[name] for name in codes.image_ids], np.int64)


def inputs_of_tables(
    images: pa.Table, segments: pa.Table, codes: pa.Table | None = None
) -> Iterator[ImageEvidenceInput]:
    """The images of a run one by one, sorted by id, masks decoded (and codes, when given) as evidence reads
    them.

    Raises:
        InputError: a segment or code of an image that is not in `images`, or a corrupt mask.
    """
    columns = ["image_id", "split", "height", "width", "asked", *(["words"] if "words" in images.column_names else [])]
    rows = sorted(images.select(columns).to_pylist(), key=lambda row: row["image_id"])
    masks: dict[str, list[tuple[str, dict[str, object]]]] = {row["image_id"]: [] for row in rows}
    maps: dict[str, dict[Site, SparseMap]] = {row["image_id"]: {} for row in rows}
    for segment in segments.select(["image_id", "concept", "mask"]).to_pylist():
        if segment["image_id"] not in masks:
            raise InputError(f"Segments name the image {segment['image_id']!r}, which the images table lacks.")
        masks[segment["image_id"]].append((segment["concept"], segment["mask"]))
    given_codes = CODES.empty_table() if codes is None else codes
    for site, numbers in rows_by_site(given_codes).items():
        part = given_codes.take(pa.array(numbers))
        for i in range(part.num_rows):
            row = {name: part[name][i] for name in ("image_id", "height", "width", "k", *_LISTS)}
            image_id = row["image_id"].as_py()
            if image_id not in maps:
                raise InputError(f"Codes name the image {image_id!r}, which the images table lacks.")
            height, width, k = (row[name].as_py() for name in ("height", "width", "k"))
            feature, value = (row[name].values.to_numpy(zero_copy_only=False) for name in _LISTS)
            maps[image_id][site] = SparseMap(height, width, k, feature, value)
    for row in rows:
        name = row["image_id"]
        decoded = [(concept, struct_to_mask(mask)) for concept, mask in masks[name]]
        size = (row["height"], row["width"])
        yield ImageEvidenceInput(name, row["split"], size, tuple(row["asked"]), decoded, maps[name], words_said(row))


def prompt_numbers(prompts: Sequence[str]) -> NDArray[np.int64]:
    """A number for every prompt, the same wherever it is reckoned: int64 [I]."""
    digests = [hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[:8] for prompt in prompts]
    return np.frombuffer(b"".join(digests), np.int64)


def read_concepts(
    images: pa.Table, segments: pa.Table, grids: Iterable[Grid], *, by_prompt: bool = False
) -> ConceptMaps:
    """Decode every mask once and pool the union of each image's segments of a concept to every grid.

    Args:
        images, segments: schemas.IMAGES and schemas.SEGMENTS.
        grids: (h, w) of the sites.
        by_prompt: tell which pictures were drawn of one prompt (`ConceptMaps.prompts`).
    Raises:
        InputError: a segment of an unknown image, a corrupt mask, or one of another size than its picture.
    """
    wanted = sorted(set(grids))
    asked_names = {c for names in images["asked"].to_pylist() for c in names}
    concepts = tuple(sorted(asked_names | set(segments["concept"].unique().to_pylist())))
    index = {name: number for number, name in enumerate(concepts)}
    asked = np.zeros((images.num_rows, len(concepts)), np.bool_)
    owners: list[tuple[int, int]] = []
    pixels = {(h, w): [np.zeros((0, h * w), np.int32)] for h, w in wanted}
    ids, splits, sizes = [], [], []
    for i, picture in enumerate(inputs_of_tables(images, segments)):
        ids.append(picture.image_id)
        splits.append(picture.split)
        sizes.append(picture.size)
        asked[i, [index[c] for c in picture.asked]] = True
        unions: dict[int, NDArray[np.bool_]] = {}
        for concept, mask in picture.segments:
            if mask.shape != picture.size:
                raise InputError(f"A mask of {picture.image_id} is {mask.shape}, but the picture is {picture.size}.")
            number = index[concept]
            unions[number] = unions[number] | mask if number in unions else mask
        asked[i, list(unions)] = True
        owners += [(i, number) for number in sorted(unions)]
        if unions:
            pooled = pool_masks(np.stack([unions[number] for number in sorted(unions)]), wanted)
            for grid in wanted:
                pixels[grid].append(pooled[grid].astype(np.int32))
    union = np.array(owners, np.int64).reshape(-1, 2)
    prompts = dict(zip(images["image_id"].to_pylist(), images["prompt"].to_pylist(), strict=True)) if by_prompt else {}
    return ConceptMaps(
        tuple(ids), concepts, np.array(splits, np.str_), np.array(sizes, np.int64).reshape(-1, 2), asked,
        union[:, 0], union[:, 1], {grid: np.concatenate(parts) for grid, parts in pixels.items()},
        prompts=prompt_numbers([prompts[name] for name in ids]) if by_prompt else None,
    )  # fmt: skip


def join_concepts(parts: Sequence[ConceptMaps]) -> ConceptMaps:
    """The maps of all images from those of disjoint sets of them: what `read_concepts` makes of all at once.

    Args:
        parts: at least one, all with the same grids.
    """
    concepts = tuple(sorted({name for part in parts for name in part.concepts}))
    index = {name: number for number, name in enumerate(concepts)}
    firsts = np.cumsum([0, *(len(part.image_ids) for part in parts)])
    ids = np.array([name for part in parts for name in part.image_ids], np.str_)
    order = np.argsort(ids, kind="stable")
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids))
    asked = np.zeros((len(ids), len(concepts)), np.bool_)
    unions = []
    for part, first in zip(parts, firsts, strict=False):
        own = np.array([index[name] for name in part.concepts], np.int64)
        rows = place[first : first + len(part.image_ids)]
        asked[rows[:, None], own[None, :]] = part.asked
        unions.append((rows[part.union_image], own[part.union_concept]))
    image = np.concatenate([images_of for images_of, _ in unions])
    concept = np.concatenate([concepts_of for _, concepts_of in unions])
    by = np.lexsort((concept, image))
    prompts = [part.prompts for part in parts if part.prompts is not None]
    return ConceptMaps(
        tuple(ids[order].tolist()), concepts, np.concatenate([part.splits for part in parts])[order],
        np.concatenate([part.sizes for part in parts])[order], asked, image[by], concept[by],
        {grid: np.concatenate([part.pixels[grid] for part in parts])[by] for grid in parts[0].pixels},
        prompts=np.concatenate(prompts)[order] if len(prompts) == len(parts) else None,
    )  # fmt: skip
