"""A run as a PASCAL VOC folder: pictures, masks of classes and of instances, and boxes as XML."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.atomic import replace_file
from gazetteer.data.inputs.given.voc import ASKED, NAMES, VOID
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.labeling.export.pictures import (
    ExportedPicture,
    concepts_of_run,
    new_place,
    pictures_of_run,
    require_beside,
)

MOST = 254
"""Classes, and instances in a picture, that a PNG of VOC can number."""


def export_voc(run: RunFolder, folder: str | Path) -> dict[str, Any]:
    """Write ``JPEGImages``, ``SegmentationClass``, ``SegmentationObject``, ``Annotations``, ``ImageSets`` and
    ``class_names.txt``, with ``asked.json``, which lists for every picture the concepts that were asked of it.

    A pixel holds one class there: where segments overlap the smaller lies on top. Of a concept with a segment that is
    wholly below others the picture does not say where it is, so that it is not listed there. Pictures stay PNG, so that
    nothing of them is lost. What was marked to be ignored and lies below no segment is 255. ``ImageSets/Segmentation``
    has ``discovery.txt`` and ``heldout.txt``.

    Returns:
        counts, with ``overlapping``, the pixels of segments that lie below others, ``hidden``, segments that are wholly
        below, and ``with_ignored``, pictures with regions that are to be ignored.
    Raises:
        InputError: not a finished run, more concepts or instances than a PNG numbers, or a folder that holds files.
    """
    root = new_place(folder, "The folder")
    require_beside(run, root)
    concepts = concepts_of_run(run)
    if len(concepts) > MOST:
        raise InputError(f"{run.path} has {len(concepts)} concepts; a VOC folder numbers at most {MOST}. Take --coco.")
    number = {concept: i for i, concept in enumerate(concepts, 1)}
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "Annotations", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[str]] = {"discovery": [], "heldout": []}
    asked: dict[str, list[str]] = {}
    segments = overlapping = hidden = with_ignored = 0
    for picture in pictures_of_run(run):
        key = picture.row["image_id"]
        splits[picture.row["split"]].append(key)
        classes, instances, below = _painted(picture, number)
        replace_file(root / "JPEGImages" / picture.name, picture.png)
        replace_file(root / "SegmentationClass" / picture.name, _png(classes))
        replace_file(root / "SegmentationObject" / picture.name, _png(instances))
        replace_file(root / "Annotations" / f"{key}.xml", _xml(picture))
        segments += len(picture.segments)
        overlapping += below
        with_ignored += picture.ignored is not None
        seen = set(np.unique(instances).tolist())
        below_others = [own["concept"] for place, own in enumerate(picture.segments, 1) if place not in seen]
        hidden += len(below_others)
        asked[key] = sorted(set(picture.row["asked"]) - set(below_others))
    for split, keys in {**splits, "trainval": sorted(itertools.chain(*splits.values()))}.items():
        replace_file(root / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{key}\n" for key in keys).encode())
    replace_file(root / ASKED, json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    names = "".join(f"{name}\n" for name in ("__ignore__", "_background_", *concepts))
    replace_file(root / NAMES, names.encode("utf-8"))
    return {
        "voc": str(root), "images": sum(map(len, splits.values())), "segments": segments, "concepts": len(concepts),
        "overlapping": overlapping, "hidden": hidden, "with_ignored": with_ignored,
    }  # fmt: skip


def _painted(picture: ExportedPicture, number: dict[str, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """Classes and instances of every pixel, and how many pixels of segments lie below others."""
    if len(picture.segments) > MOST:
        raise InputError(
            f"The picture {picture.row['image_id']} has {len(picture.segments)} segments; VOC numbers {MOST}."
        )
    shape = (picture.row["height"], picture.row["width"])
    classes, instances, below = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), 0
    for place, segment in enumerate(picture.segments, 1):  # largest first
        mask = struct_to_mask(segment["mask"])
        below += int((instances[mask] > 0).sum())
        classes[mask], instances[mask] = number[segment["concept"]], place
    if picture.ignored is not None:
        undecided = picture.ignored & (instances == 0)
        classes[undecided] = instances[undecided] = VOID
    return classes, instances, below


def _png(numbers: NDArray[np.uint8]) -> bytes:
    """A PNG with VOC's palette, whose indices are the numbers."""
    picture = Image.fromarray(numbers, mode="P")
    picture.putpalette(_palette())
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _palette() -> list[int]:
    """The colours of VOC's development kit: the bits of a number, dealt to red, green and blue from the top."""
    colours = []
    for number in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
        colours += colour
    return colours


def _xml(picture: ExportedPicture) -> bytes:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = picture.name
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", picture.row["width"]), ("height", picture.row["height"]), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "1"
    for segment in picture.segments:
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = segment["concept"]
        for name in ("truncated", "difficult"):
            ElementTree.SubElement(item, name).text = "0"
        box = ElementTree.SubElement(item, "bndbox")
        x0, y0, x1, y1 = segment["box"]
        # Pixels count from 1 in VOC, and the last one is within the box.
        for name, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
            ElementTree.SubElement(box, name).text = str(round(value))
    return bytes(ElementTree.tostring(root, encoding="utf-8"))
