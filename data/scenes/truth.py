"""Rendered scenes with their exact masks as tables: `python -m gazetteer.data.scenes.truth --out FOLDER --images 200`.

What `gazetteer layout evaluate --exact FOLDER` reads: ``images/`` and ``segments/`` in the schemas of a run. Scenes are
seen from the views that the world's models were trained on (`weights.world_views`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gazetteer.data.inputs.exact import ExactPicture
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.weights import world_views
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import IMAGES, SEGMENTS

FIRST = 500_000_000
"""Offset into EVAL_SEEDS, away from the scenes other measurements use."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    arguments = parser.parse_args(argv)
    write_truth(arguments.out, arguments.images, arguments.size)
    print(f"{arguments.images} scenes with exact masks in {arguments.out}")
    return 0


def write_truth(out: Path, images: int, size: int = 128) -> None:
    """Render scenes no model was trained on and write ``images/`` and ``segments/`` below `out`."""
    pictures, segments, views = [], [], world_views()
    for number in range(images):
        scene = render(EVAL_SEEDS[FIRST + number], size, views)
        name = f"{number:08d}"
        pictures.append(
            {
                "image_id": name, "prompt": scene.caption, "seed": scene.seed, "split": "heldout",
                "image": {"bytes": encode_image(scene.image), "path": f"{name}.png"},
                "width": size, "height": size, "asked": list(CONCEPT_NAMES),
            }
        )  # fmt: skip
        segments += [
            {
                "image_id": name, "concept": instance.concept, "score": 1.0, "box": instance.box.tolist(),
                "area": int(instance.mask.sum()), "predicted_iou": 1.0, "mask": mask_to_struct(instance.mask),
            }
            for instance in scene.instances
        ]  # fmt: skip
    for name, rows, schema in (("images", pictures, IMAGES), ("segments", segments, SEGMENTS)):
        (out / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out / name / "part-0.parquet", compression="zstd")


LABEL_HALVES = {"tuning": 600_000_000, "report": 700_000_000}
"""Offsets into EVAL_SEEDS of the scenes that labels are judged by: thresholds are chosen on the one half, and reported
on the other."""


def pictures(images: int, half: str) -> Iterator[ExactPicture]:
    """Rendered scenes with exact masks and their looks, as the accuracy of labels is measured on them.

    Args:
        half: a key of `LABEL_HALVES`.
    """
    views = world_views()
    for number in range(images):
        scene = render(EVAL_SEEDS[LABEL_HALVES[half] + number], views=views)
        masks: dict[str, NDArray[np.bool_]] = {}
        for instance in scene.instances:
            masks[instance.concept] = (
                masks[instance.concept] | instance.mask if instance.concept in masks else instance.mask
            )
        looks = (scene.style,) if scene.style else ()
        yield ExactPicture(f"{half}-{number:08d}", scene.caption, scene.image, masks, looks)


if __name__ == "__main__":
    sys.exit(main())
