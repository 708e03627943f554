"""Reads exports with supervision and with Label Studio's own library, and prints what they hold as JSON.

A program of its own: groundingdino-py holds the tests' supervision at 0.6, which reads neither format.
`python read_by_others.py PACKAGES COCO VOC TASKS`, with the folder where the two were installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(packages: str, coco: str, voc: str, tasks: str) -> None:
    """The area of every mask by picture and class, and every box, as each library has them."""
    sys.path.insert(0, packages)
    import supervision
    from label_studio_sdk.converter.brush import decode_rle

    found: dict[str, Any] = {"coco": {}, "voc": {}, "labelstudio": {}}
    folder = Path(coco).parent
    whole = supervision.DetectionDataset.from_coco(str(folder / "images"), coco, force_masks=True)
    for path, _, seen in whole:
        rows = zip(seen.class_id, seen.mask, strict=True)
        found["coco"][Path(path).stem] = sorted([whole.classes[i], int(mask.sum())] for i, mask in rows)
    boxes = supervision.DetectionDataset.from_pascal_voc(f"{voc}/JPEGImages", f"{voc}/Annotations")
    for path, _, seen in boxes:
        rows = zip(seen.class_id, seen.xyxy, strict=True)
        found["voc"][Path(path).stem] = sorted([boxes.classes[i], box.round().astype(int).tolist()] for i, box in rows)
    for task in json.loads(Path(tasks).read_text(encoding="utf-8")):
        masks = []
        for result in task["predictions"][0]["result"]:
            shape = (result["original_height"], result["original_width"], 4)
            painted = decode_rle(result["value"]["rle"]).reshape(shape)[..., 3] > 0
            masks.append([result["value"]["brushlabels"][0], int(painted.sum())])
        found["labelstudio"][task["data"]["image_id"]] = sorted(masks)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
