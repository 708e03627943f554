"""Pictures: one thumbnail an image, written once, and beside it what was found in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.masks import mask_to_struct, struct_to_mask
from gazetteer.labeling.atlas.script import figure

SUFFIX = ".webp"
SIDE = 320
MASK_SIDE = 192
IMAGE_COLUMNS = ("image_id", "prompt", "seed", "split", "image", "width", "height", "asked", "words")
SEGMENT_COLUMNS = ("image_id", "concept", "score", "mask")


def concept_images(segments: pa.Table, known: set[str], most: int) -> tuple[dict[str, list[str]], dict[str, int]]:
    """From the columns image_id, concept, area: every concept's example images and in how many images it was found.

    The examples are the `most` images in which it covers the most pixels, ties broken by id.
    """
    area: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    columns = (segments[name].to_pylist() for name in ("image_id", "concept", "area"))
    for image_id, concept, pixels in zip(*columns, strict=True):
        if image_id in known:
            area[concept][image_id] += pixels
    examples = {
        concept: sorted(images, key=lambda image_id: (-images[image_id], image_id))[:most]
        for concept, images in area.items()
    }
    return examples, {concept: len(images) for concept, images in area.items()}


def write_thumbnail(content: bytes, path: Path) -> None:
    """Write the picture to `path` as WebP, shrunk to SIDE pixels if it is larger; InputError if it is corrupt."""
    picture = Image.fromarray(decode_image(content))
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    picture.save(path, format="WEBP", quality=84, method=2)


def outline_struct(mask: Mapping[str, Any]) -> dict[str, Any]:
    """The mask as run lengths, checked, and thinned to at most MASK_SIDE pixels a side: the page traces its outline."""
    pixels = struct_to_mask(mask)
    stride = -(-max(pixels.shape) // MASK_SIDE)
    if stride == 1:
        return dict(mask)
    return mask_to_struct(np.ascontiguousarray(pixels[stride // 2 :: stride, stride // 2 :: stride]))


def image_records(
    images: pa.Table, segments: pa.Table, concepts: Mapping[str, int], folder: Path
) -> dict[str, dict[str, Any]]:
    """Write the thumbnails of `images` into `folder`; the page's record of every image, by id.

    Args:
        images: IMAGE_COLUMNS of the images to show.
        segments: SEGMENT_COLUMNS, of these images.
        concepts: the number of every concept.
    """
    by_concept: dict[str, list[list[Any]]] = defaultdict(list)
    for row in segments.to_pylist():
        struct = outline_struct(row["mask"])
        height, width = struct["size"]
        by_concept[row["image_id"]].append(
            [concepts[row["concept"]], figure(row["score"], 3), height, width, struct["counts"]]
        )
    records = {}
    for row in images.to_pylist():
        image_id = row["image_id"]
        if row["image"] is None or row["image"]["bytes"] is None:
            raise InputError(
                f"The image {image_id} is in the images table without its bytes; run gazetteer label again."
            )
        write_thumbnail(row["image"]["bytes"], folder / f"{image_id}{SUFFIX}")
        records[image_id] = {
            "file": f"{image_id}{SUFFIX}",
            "prompt": row["prompt"],
            "seed": str(row["seed"]),  # 63 bits do not survive as a JavaScript number
            "split": row["split"],
            "width": row["width"],
            "height": row["height"],
            "asked": [concepts[name] for name in row["asked"] if name in concepts],
            "segments": by_concept[image_id],
            "words": None if row["words"] is None else [list(run.values()) for run in row["words"]],
        }
    return records
