"""The files of a COCO data set: which JSON belongs together, and where the pictures that it names lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_regular, require_file

_LOOKED_FOR = 100
"""Pictures that are looked for to find their folder."""


def beside(file: Path, kind: str) -> Path:
    """Where what joins a file of instances lies: ``captions_val.json`` of ``val.json`` and ``instances_val.json``.

    kind: ``stuff`` or ``captions``.
    """
    return file.with_name(f"{kind}_{file.name.removeprefix('instances_')}")


def annotation_files(path: Path, split: str) -> list[Path]:
    """The JSON files of one split, instances first.

    Raises:
        InputError: there are none, several where one is needed, or one that is not of this split.
    """
    if path.is_file():
        if not _is_of(path, split):
            raise InputError(
                f"pictures.coco is the file {path}, which is not of pictures.split={split}; set one of them."
            )
        named = [path, *(file for kind in ("stuff", "captions") if (file := beside(path, kind)).is_file())]
    else:
        if not path.is_dir():
            require_file("The COCO annotations", path, "a JSON file, or a folder of them")
        files = [file for folder in (path, path / "annotations") for file in sorted(folder.glob("*.json"))]
        others = ("person_", "image_info", "panoptic")
        named = [file for file in files if _is_of(file, split) and not file.stem.startswith(others)]
        main = [file for file in named if not file.stem.startswith(("captions", "stuff"))]
        if len(main) > 1:
            names = ", ".join(file.name for file in main[:4])
            raise InputError(f"{path} holds several annotation files ({names}); name one of them, or pictures.split.")
        named.sort(key=lambda file: file not in main)
    if not named:
        raise InputError(f"{path} holds no COCO JSON{f' of the split {split}' if split else ''}.")
    return named


def _is_of(file: Path, split: str) -> bool:
    """Whether a split is a part of a file's name, with or without its year: of ``instances_val2017.json`` val is."""
    return not split or re.search(rf"(?:^|[_.-]){re.escape(split)}\d*(?:$|[_.-])", file.stem) is not None


def read_content(file: Path) -> dict[str, Any]:
    """What a JSON file holds; InputError where it is none, or no object."""
    try:
        content = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not COCO's JSON of images, annotations and categories.")
    return content


def near(file: Path, split: str) -> Iterator[Path]:
    """Where the pictures of a JSON file usually lie."""
    own = split or file.stem.rpartition("_")[2]
    for root in (file.parent, file.parent.parent):
        yield from (root, root / own, root / "images", root / "images" / own)


def picture_key(image: dict[str, Any]) -> str:
    """What names a picture: its file without the suffix, as with other data sets."""
    return Path(file_name(image)).with_suffix("").as_posix()


def file_name(image: dict[str, Any]) -> str:
    """Where a picture lies; LVIS says its address on the web alone, which ends in COCO's folder and file."""
    if "file_name" in image or "coco_url" not in image:
        name: str = image["file_name"]
        return name
    return "/".join(urlsplit(image["coco_url"]).path.strip("/").split("/")[-2:])


def places_of(name: str, image: dict[str, Any]) -> list[str]:
    """Where a picture may lie in the folder of pictures: LVIS' with the folder that its address names, or without."""
    return [name] if "file_name" in image else [name, Path(name).name]


def _leads_out(name: str) -> bool:
    """Whether a name is of a file that need not lie in the folder that it is looked for in."""
    return Path(name).is_absolute() or ".." in Path(name).parts


def picture_folder(places: Iterable[Path], images: dict[str, dict[str, Any]], files: dict[str, str], what: str) -> Path:
    """The first place with one of the first pictures: any of them may be missing.

    A name that leads out of its folder is there, or not, from any place: it says nothing, but where all are so.
    """
    tried = list(places)
    own_names = {key: places_of(files[key], image) for key, image in images.items()}
    inside = [own for own in own_names.values() if not _leads_out(own[0])]
    names = (inside or list(own_names.values()))[:_LOOKED_FOR]
    folder = next((place for own in names for place in tried if any((place / name).is_file() for name in own)), None)
    if folder is None:
        looked = ", ".join(map(str, tried[:4]))
        raise InputError(f"The picture {names[0][0]} of {what} is in none of {looked}; set pictures.images.")
    return folder
