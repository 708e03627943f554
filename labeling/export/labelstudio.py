"""A run as tasks of Label Studio: every segment a brush mask that people can correct, boxes beside."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import new_file, replace_file
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.labeling.export.pictures import ExportedPicture, concepts_of_run, pictures_of_run, require_beside

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="brush" toName="image">
{labels}
  </BrushLabels>
</View>
"""


def export_labelstudio(run: RunFolder, file: str | Path) -> dict[str, Any]:
    """Write tasks with predictions, pictures inside as data URLs, and the labelling interface beside them (``.xml``).

    Returns:
        counts and what was written; ``ignored_left_out`` is of pictures with regions that are to be ignored, of which
        Label Studio's masks have none.
    Raises:
        InputError: not a finished run, or a file that is no ``.json``, is there already or cannot be written.
    """
    target = Path(file)
    if target.suffix != ".json":
        raise InputError(f"--labelstudio names a JSON file to write, not {target}.")
    new_file(target)
    interface = new_file(target.with_suffix(".xml"))
    require_beside(run, target)
    tasks, left_out = [], 0
    for picture in pictures_of_run(run):
        tasks.append(_task(picture, run))
        left_out += picture.ignored is not None
    replace_file(target, json.dumps(tasks).encode("utf-8"))
    labels = "\n".join(f'    <Label value="{_escaped(concept)}"/>' for concept in concepts_of_run(run))
    replace_file(interface, CONFIG.format(labels=labels).encode("utf-8"))
    segments = sum(len(task["predictions"][0]["result"]) for task in tasks)
    return {
        "labelstudio": str(target), "interface": str(interface), "images": len(tasks), "segments": segments,
        "ignored_left_out": left_out,
    }  # fmt: skip


def _task(picture: ExportedPicture, run: RunFolder) -> dict[str, Any]:
    row = picture.row
    data = {"image": f"data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')}"}
    data |= {key: row[key] for key in ("image_id", "prompt", "seed", "split", "asked")}
    results = [_result(segment, f"{row['image_id']}-{i}", row["width"], row["height"])
               for i, segment in enumerate(picture.segments)]  # fmt: skip
    scores = [segment["score"] for segment in picture.segments]
    version = f"gazetteer {run.path.rstrip('/').rpartition('/')[2]}"
    prediction = {"model_version": version, "result": results, "score": float(np.mean(scores)) if scores else 0.0}
    return {"data": data, "predictions": [prediction]}


def _result(segment: dict[str, Any], name: str, width: int, height: int) -> dict[str, Any]:
    mask = struct_to_mask(segment["mask"])
    return {
        "id": name, "type": "brushlabels", "from_name": "brush", "to_name": "image", "image_rotation": 0,
        "original_width": width, "original_height": height, "score": segment["score"],
        "value": {"format": "rle", "rle": brush_rle(mask), "brushlabels": [segment["concept"]]},
    }  # fmt: skip


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """A mask [H, W] in Label Studio's run lengths: of the RGBA bytes of the brush's canvas, 255 where it is painted.

    A stream of bits (the format of the library "@thi.ng/rle-pack"): 32 bits how many bytes there are, 5 bits the size
    of a byte less 1, four times 4 bits the sizes of run lengths less 1; then runs: 1 bit whether one value repeats, 2
    bits which of the four sizes, the length less 1, and the value, or every one of the values.
    """
    values = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    sizes = (3, 4, 8, 16)
    bits = [f"{len(values):032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in sizes)]
    edges = np.flatnonzero(np.diff(values)) + 1
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(values)], strict=True):
        left = end - start
        while left:
            length = min(left, 2 ** sizes[-1])
            which = next(i for i, size in enumerate(sizes) if length <= 2**size)
            bits.append(f"1{which:02b}{length - 1:0{sizes[which]}b}{int(values[start]):08b}")
            left -= length
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return [int(stream[i : i + 8], 2) for i in range(0, len(stream), 8)]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
