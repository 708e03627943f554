"""ADE20K as ADEChallengeData2016 lays it out: a class number in every pixel, 0 for what none of the 150 names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_text
from gazetteer.data.inputs.given.names import concept_names, require_once
from gazetteer.data.inputs.given.picture import (
    GivenPicture,
    expect_folder,
    mask_size,
    picture_file,
    picture_files,
    read_index_mask,
    read_picture,
)

LIST = "objectInfo150.txt"


class AdePictures:
    """An ADE20K folder; see `gazetteer.data.inputs.given.picture.GivenPictures`."""

    def __init__(self, path: str, split: str = "") -> None:
        """Raises InputError: another layout, an unknown split, or no annotated picture."""
        self._folder = expect_folder(path, "The ADE20K folder", ("images", "annotations", LIST))
        self._names = _class_names(self._folder / LIST)
        self.concepts, self.uncertain = tuple(sorted(set(self._names.values()))), frozenset[str]()
        self.notes: tuple[str, ...] = ()
        root = self._folder / "annotations"
        place = root / split if split else root
        if not place.is_dir():
            splits = ", ".join(sorted(folder.name for folder in root.iterdir() if folder.is_dir())) or "none"
            raise InputError(f"{path} has no split {split!r} in annotations; it has {splits}.")
        self.annotations = (self._folder / LIST,)
        self.keys = tuple(sorted(file.relative_to(root).with_suffix("").as_posix() for file in place.rglob("*.png")))
        if not self.keys:
            raise InputError(f"{path} has no PNG in annotations{f'/{split}' if split else ''}.")

    def caption(self, key: str) -> str:
        """ADE20K says nothing of its pictures."""
        return ""

    def files(self, key: str) -> tuple[Path, ...]:
        """Its picture and the PNG of its classes."""
        return (*picture_files(self._folder / "images", key), self._mask(key))

    def read(self, key: str) -> GivenPicture:
        """A picture with one segment a class."""
        annotated = self._mask(key)
        image = read_picture(picture_file(self._folder / "images", key), mask_size(annotated))
        classes = read_index_mask(annotated, image.shape[:2])
        segments = []
        for number in np.unique(classes[classes > 0]).tolist():
            if number not in self._names:
                raise InputError(f"The mask of {key} holds the class {number}, which {LIST} does not list.")
            segments.append((self._names[number], classes == number))
        ignored = classes == 0
        return GivenPicture(image, tuple(segments), frozenset(), ignored if ignored.any() else None)

    def _mask(self, key: str) -> Path:
        return self._folder / "annotations" / f"{key}.png"


def _class_names(file: Path) -> dict[int, str]:
    """Number -> concept, from the tab-separated list (columns Idx … Name)."""
    text = read_text("ADE20K's list of classes", file)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
        listed = [(int(row["Idx"]), row["Name"]) for row in rows]
        concepts = concept_names(name for _, name in listed)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{file} is not ADE20K's list of classes (columns Idx and Name, tab-separated).") from error
    names: dict[int, str] = {}
    for number, name in listed:
        if number in names:
            raise InputError(f"{file} lists the class {number} twice; give each its own number.")
        names[number] = concepts[name]
    if nameless := [number for number, name in names.items() if not name]:
        raise InputError(f"{file} gives the class {nameless[0]} no name; a concept has one.")
    require_once(names.items(), str(file))
    return names
