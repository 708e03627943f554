"""A run as COCO JSON, read by pycocotools; its pictures lie in ``images/`` beside the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pycocotools import mask as masks

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import new_file, replace_file
from gazetteer.data.inputs.given.coco_files import beside
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.labeling.export.pictures import concepts_of_run, pictures_of_run, require_beside


def export_coco(run: RunFolder, file: str | Path, *, pictures: bool = True) -> dict[str, Any]:
    """Write a run's segments as COCO instances: polygons are not made, masks are compressed run lengths.

    A ``bbox`` is its mask's own; the detector's box is ``detector_box``, both [x, y, width, height] in pixels.
    Each image has, beside COCO's keys, ``gazetteer``: its image id, prompt, seed, split, the concepts that were asked
    of it and, where some of it was marked to be ignored, that as run lengths (``ignored``). Its caption is an entry of
    ``captions_<name>`` beside the file, as COCO keeps them.

    Args:
        pictures: also write the PNG files, into ``images/`` beside the file.

    Returns:
        counts and what was written; ``with_ignored`` is of pictures with regions that are to be ignored.
    Raises:
        InputError: not a finished run, or a file that is there already, cannot be written, or would put pictures
            among the run's own tables.
    """
    target = Path(file)
    if target.suffix != ".json":
        raise InputError(f"--coco names a JSON file to write, not {target}.")
    folder = target.parent / "images"
    spoken = beside(new_file(target), "captions")
    new_file(spoken)
    concepts = concepts_of_run(run)
    for place in (target, folder) if pictures else (target,):
        require_beside(run, place)
    if pictures:
        _require_free(folder, target, run)
    number = {concept: i for i, concept in enumerate(concepts, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for i, picture in enumerate(pictures_of_run(run), 1):
        row = picture.row
        about = {key: row[key] for key in ("image_id", "prompt", "seed", "split", "asked")}
        if picture.ignored is not None:
            about["ignored"] = mask_to_struct(picture.ignored)
        images.append(
            {"id": i, "file_name": picture.name, "width": row["width"], "height": row["height"], "gazetteer": about}
        )
        captions.append({"id": i, "image_id": i, "caption": row["prompt"]})
        first = len(annotations) + 1
        annotations += [_annotation(segment, first + n, i, number) for n, segment in enumerate(picture.segments)]
        if pictures:
            replace_file(folder / picture.name, picture.png)
    categories = [{"id": i, "name": concept, "supercategory": ""} for concept, i in number.items()]
    name = run.path.rstrip("/").rpartition("/")[2]
    about = {"description": f"Segments of the Gazetteer run {name}", "version": "1.0"}
    common = {"info": about, "licenses": [], "images": images}
    _write(target, {**common, "annotations": annotations, "categories": categories})
    _write(spoken, {**common, "annotations": captions})
    return {
        "coco": str(target), "captions": str(spoken), "images": len(images), "segments": len(annotations),
        "concepts": len(categories), "with_ignored": sum("ignored" in image["gazetteer"] for image in images),
    }  # fmt: skip


def _require_free(folder: Path, target: Path, run: RunFolder) -> None:
    """InputError where the folder of pictures holds another file of a picture's name."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is to hold the pictures of {target} and is a file; name another place.")
    for picture in pictures_of_run(run) if folder.is_dir() and any(folder.iterdir()) else ():
        file = folder / picture.name
        if file.is_symlink() or (file.exists() and not (file.is_file() and file.read_bytes() == picture.png)):
            raise InputError(f"{file} is there already and is another picture; name another place for {target}.")


def _annotation(segment: dict[str, Any], number: int, image: int, categories: dict[str, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = segment["box"]  # of the detector; the mask may reach beyond it
    coded = {"size": list(segment["mask"]["size"]), "counts": segment["mask"]["counts"]}
    return {
        "id": number, "image_id": image, "category_id": categories[segment["concept"]], "iscrowd": 0,
        "segmentation": coded, "area": segment["area"], "bbox": masks.toBbox(coded).tolist(),
        "detector_box": [x0, y0, x1 - x0, y1 - y0], "score": segment["score"],
    }  # fmt: skip


def _write(file: Path, content: dict[str, Any]) -> None:
    replace_file(file, json.dumps(content).encode("utf-8"))
