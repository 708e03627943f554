"""PASCAL VOC: ``JPEGImages``, ``SegmentationClass`` and, where it is there, ``SegmentationObject``; 255 is ignored."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path

import numpy as np

from gazetteer.data.core.complaints import suggestion
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_text
from gazetteer.data.inputs.given.names import concept_names, require_once
from gazetteer.data.inputs.given.picture import (
    GivenPicture,
    Masks,
    concept_name,
    expect_folder,
    mask_size,
    picture_file,
    picture_files,
    read_index_mask,
    read_picture,
)

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
"""Numbers 1 to 20, unless the folder has a ``class_names.txt`` (as labelme writes it, background first)."""

NAMES = "class_names.txt"
ASKED = "asked.json"
"""Beside it, where `gazetteer export` wrote the folder: by picture the concepts that were asked of it."""

VOID = 255
BACKGROUND = "_background_"


class VocPictures:
    """A PASCAL VOC folder; see `gazetteer.data.inputs.given.picture.GivenPictures`."""

    def __init__(self, path: str, split: str = "") -> None:
        """Raises InputError: another layout, an unknown split, or no segmented picture."""
        self._folder = expect_folder(path, "The VOC folder", ("JPEGImages", "SegmentationClass"))
        self._names = _class_names(self._folder)
        self.concepts = tuple(sorted(set(self._names)))
        self.annotations = tuple(file for name in (NAMES, ASKED) if (file := self._folder / name).is_file())
        every = segmented = {file.stem for file in (self._folder / "SegmentationClass").glob("*.png")}
        lists = self._folder / "ImageSets" / "Segmentation"
        if split:
            file = lists / f"{split}.txt"
            if not file.exists():
                splits = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))) or "none"
                raise InputError(f"{path} has no split {split!r} in ImageSets/Segmentation; it has {splits}.")
            self.annotations += (file,)
            listed = set(read_text("The list", file).split())
            if missing := sorted(listed - segmented):
                raise InputError(
                    f"{file} lists {len(missing)} pictures without a PNG in SegmentationClass, such as {missing[0]}."
                )
            segmented = listed
        if not segmented:
            raise InputError(f"{path} has no PNG in SegmentationClass{f' of the split {split}' if split else ''}.")
        self.keys = tuple(sorted(segmented))
        self._unasked, self.notes = _unasked(self._folder / ASKED, self.keys, every, set(self.concepts))
        self.uncertain = frozenset().union(*self._unasked.values())

    def caption(self, key: str) -> str:
        """VOC says nothing of its pictures."""
        return ""

    def files(self, key: str) -> tuple[Path, ...]:
        """Its picture, the PNG of its classes and, where there is one, that of its instances."""
        folder = self._folder
        masks = [folder / name / f"{key}.png" for name in ("SegmentationClass", "SegmentationObject")]
        return (*picture_files(folder / "JPEGImages", key), *(file for file in masks if file.is_file()))

    def read(self, key: str) -> GivenPicture:
        """A picture with its instances, or its classes where there are none."""
        folder = self._folder
        annotated = folder / "SegmentationClass" / f"{key}.png"
        image = read_picture(picture_file(folder / "JPEGImages", key), mask_size(annotated))
        size = image.shape[:2]
        classes = read_index_mask(annotated, size)
        ignored = classes == VOID
        objects = folder / "SegmentationObject" / f"{key}.png"
        parts = read_index_mask(objects, size) if objects.is_file() else classes
        segments = []
        for part in np.unique(parts[parts != VOID]):  # 0: of classes that are not told into instances
            mask = (parts == part) & ~ignored
            inside = np.unique(classes[mask & (classes > 0)])
            if part and mask.any() and not len(inside):
                raise InputError(f"The instance {part} of {key} has no class in SegmentationClass.")
            segments += [(self._name(int(number), key), mask & (classes == number)) for number in inside]
        unasked = self._unasked.get(key, frozenset())
        known = tuple((concept, mask) for concept, mask in segments if concept not in unasked)
        return GivenPicture(image, known, unasked, _some(ignored))

    def _name(self, number: int, key: str) -> str:
        if number > len(self._names):
            raise InputError(f"The mask of {key} holds the class {number}; there are 1 to {len(self._names)}.")
        return self._names[number - 1]


def _class_names(folder: Path) -> list[str]:
    file = folder / NAMES
    if not file.exists():
        return list(CLASSES)
    lines = [line.strip() for line in read_text("The list", file).splitlines() if line.strip()]
    leading = [line.lower() for line in takewhile(lambda line: line.startswith("_"), lines)]
    if BACKGROUND in leading:
        names = lines[leading.index(BACKGROUND) + 1 :]
    else:
        names = lines[len(leading) :]
        names = names[[name.lower() for name in names[:1]] == ["background"] :]
    if nameless := [name for name in names if not concept_name(name)]:
        raise InputError(f"{file} names the class {nameless[0]!r}; a concept has a name.")
    concepts = concept_names(names)
    require_once(enumerate((concepts[name] for name in names), 1), str(file))
    return [concepts[name] for name in names]


def _unasked(
    file: Path, keys: tuple[str, ...], every: set[str], concepts: set[str]
) -> tuple[dict[str, frozenset[str]], tuple[str, ...]]:
    """What was not asked of every picture; of those that the file does not name, or where there is none, nothing.

    Masks of such a class are left out: an export has them where other segments of the class are hidden.

    Args:
        keys, every: pictures that are wanted, and all that have masks.

    Returns:
        that, and notes on pictures that are not there.
    """
    if not file.exists():
        return {}, ()
    try:
        asked = json.loads(read_text("The list of what was asked", file))
        if not (isinstance(asked, dict) and all(isinstance(own, list) for own in asked.values())):
            raise TypeError("no lists by name")
        named = {key: {concept_name(name): name for name in own} for key, own in asked.items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is not JSON that lists for every picture what was asked of it ({error}).") from error
    for key, own in named.items():
        if unknown := sorted(set(own) - concepts):
            raise InputError(
                f"{file} says that the picture {key} was asked {own[unknown[0]]!r}, which is no class of the folder; "
                f"{suggestion(unknown[0], sorted(concepts))}"
            )
    lost = sorted(set(named) - every)
    if lost and len(lost) == len(named):
        raise InputError(f"{file} names no picture of the folder: it has {lost[0]}, the folder {min(every)}.")
    notes = (f"{len(lost)} pictures of {len(named)} in {file} are not there, such as {lost[0]}.",) if lost else ()
    return {key: frozenset(concepts - set(named[key])) for key in keys if key in named}, notes


def _some(ignored: Masks) -> Masks | None:
    return ignored if ignored.any() else None
