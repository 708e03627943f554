"""Small COCO, ADE20K and VOC folders for the tests of given pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as masks


def picture(path: Path, height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    """A random PNG, and what is in it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def numbers(path: Path, values: np.ndarray) -> None:
    """A PNG of numbers with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(values.astype(np.uint8), mode="P")
    made.putpalette(list(range(256)) * 3)
    made.save(path)


def rle(mask: np.ndarray) -> dict:
    """Compressed run lengths as JSON holds them."""
    coded = masks.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": coded["counts"].decode()}


def coco_folder(root: Path) -> Path:
    """Two pictures: polygons, plain and compressed run lengths, a crowd, stuff and captions."""
    for i in (1, 2):
        picture(root / "val2017" / f"{i}.png", seed=i)
    images = [{"id": i, "file_name": f"{i}.png", "height": 6, "width": 8} for i in (1, 2)]
    plain = {"size": [6, 8], "counts": [6, 12, 30]}  # the second and third column
    crowd = np.zeros((6, 8), bool)
    crowd[:3] = True
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 18, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2],
         "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
        {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 12, "bbox": [1, 0, 2, 6],
         "segmentation": plain},
        {"id": 3, "image_id": 2, "category_id": 1, "iscrowd": 1, "area": 24, "bbox": [0, 0, 8, 3],
         "segmentation": rle(crowd)},
    ]  # fmt: skip
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    things = {"images": images, "annotations": annotations, "categories": categories}
    grass = np.zeros((6, 8), bool)
    grass[4:] = True
    stuff = {
        "images": images,
        "annotations": [
            {"id": 9, "image_id": 2, "category_id": 124, "iscrowd": 0, "area": 16, "bbox": [0, 4, 8, 2],
             "segmentation": rle(grass)},
            {"id": 10, "image_id": 2, "category_id": 183, "iscrowd": 0, "area": 32, "bbox": [0, 0, 8, 4],
             "segmentation": rle(~grass)},
        ],
        "categories": [{"id": 124, "name": "grass_merged"}, {"id": 183, "name": "other"}],
    }  # fmt: skip
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 2, "caption": "people on grass "}]}
    (root / "annotations").mkdir(parents=True)
    for name, content in (("instances", things), ("stuff", stuff), ("captions", captions)):
        (root / "annotations" / f"{name}_val2017.json").write_text(json.dumps(content))
    (root / "annotations" / "person_keypoints_val2017.json").write_text("{}")
    return root


def ade_folder(root: Path) -> Path:
    """A picture of wall, building and sky, and one that nobody looked at."""
    (root / "objectInfo150.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n2\t0.1\t1\t1\t1\tbuilding, edifice\n"
        "3\t0\t1\t1\t1\tsky\n"
    )
    values = np.zeros((6, 8), int)
    values[:2], values[2:4, :4], values[2:4, 4:] = 3, 1, 2
    for name, numbers_of in (("training/a", values), ("validation/b", np.zeros((6, 8), int))):
        picture(root / "images" / f"{name}.png")
        numbers(root / "annotations" / f"{name}.png", numbers_of)
    return root
