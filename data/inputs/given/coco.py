"""COCO JSON: instances, stuff and captions.

A crowd region (``iscrowd``) covers many of a kind without saying which pixels are theirs, and a box without a mask does
not say it either: its picture leaves that category unasked, as LVIS' ``not_exhaustive_category_ids`` do; with LVIS'
``neg_category_ids`` only what is there or is said to be absent is asked. Where files are joined (instances and stuff),
a picture is asked for the categories of those that list it. Of COCO stuff the category "other" (183), which stands
for all things, is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_regular, require_file
from gazetteer.data.inputs.given.coco_masks import decoded, says_where
from gazetteer.data.inputs.given.picture import GivenPicture, concept_name, read_picture

OTHER = 183, "other"
"""Id and name of what COCO stuff calls all things; another data set may have a category of that name."""

_LOOKED_FOR = 100
"""Pictures that are looked for to find their folder."""


class CocoPictures:
    """A COCO data set; see `gazetteer.data.inputs.given.picture.GivenPictures`."""

    def __init__(self, path: str, images: str = "", split: str = "") -> None:
        """Raises InputError: no JSON there, several where one is needed, or JSON that is not COCO's."""
        files = [(file, _json(file)) for file in annotation_files(Path(path), split)]
        self._captions: dict[str, str] = {}
        self._images: dict[str, dict[str, Any]] = {}
        self._file: dict[str, str] = {}
        self._annotations: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._asked: dict[str, set[str]] = {}  # by picture, of the files that list it
        names: set[str] = set()
        for file, content in files:
            names |= self._add(file, content)
        self.concepts = tuple(sorted(names))
        if not self.concepts or not self._images:
            raise InputError(f"{path} names no {'picture' if self.concepts else 'category'} with masks.")
        self.keys = tuple(sorted(self._images))
        self.uncertain = frozenset().union(*(self._unasked(key) for key in self.keys))
        self._folder = _picture_folder(
            [Path(images)] if images else _near(files[0][0], split), self._images, self._file, path
        )

    def caption(self, key: str) -> str:
        """The first caption of a picture."""
        return self._captions.get(key, "")

    def files(self, key: str) -> tuple[Path, ...]:
        """Its picture; the masks are in the JSON."""
        places = [self._folder / name for name in _names(self._file[key], self._images[key])]
        return (next((place for place in places if place.is_file()), places[0]),)

    def read(self, key: str) -> GivenPicture:
        """A picture with its instances; crowds are no instances."""
        about = self._images[key]
        image = read_picture(self.files(key)[0], (about.get("height"), about.get("width")))
        height, width = image.shape[:2]
        unasked, segments = self._unasked(key), []
        stated = (about.get("height", height), about.get("width", width))
        if stated != (height, width):
            raise InputError(
                f"The picture {key} measures {height} × {width}, its annotations say {stated[0]} × {stated[1]}."
            )
        for concept, annotation in self._annotations[key]:
            if concept not in unasked:
                mask = decoded(annotation, height, width, key)
                if mask.any():
                    segments.append((concept, mask))
        return GivenPicture(image, tuple(segments), unasked)

    def _add(self, file: Path, content: dict[str, Any]) -> set[str]:
        """Take in one file; returns its concepts. Captions have no categories."""
        try:
            images = _by_id(file, "pictures", content["images"])
            annotations = _once(content["annotations"])
            if "categories" not in content:
                for annotation in annotations:
                    self._captions.setdefault(_key(images[annotation["image_id"]]), str(annotation["caption"]).strip())
                return set()
            if any("segments_info" in annotation for annotation in annotations[:1]):
                raise InputError(f"{file} is of panoptic masks; name the instances and stuff files instead.")
            entries = _by_id(file, "categories", content["categories"])
            categories = {number: concept_name(category["name"]) for number, category in entries.items()}
            if OTHER in categories.items():
                del categories[OTHER[0]]
                annotations = [annotation for annotation in annotations if annotation["category_id"] != OTHER[0]]
            if nameless := [number for number, name in categories.items() if not name]:
                raise InputError(f"{file} gives the category {nameless[0]!r} no name; a concept has one.")
            shown: dict[Any, set[str]] = {}
            for annotation in annotations:
                if annotation.get("iscrowd", 0) not in (0, 1, None):
                    raise InputError(f"{file} has the iscrowd {annotation['iscrowd']!r}; accepted: 0, 1.")
                shown.setdefault(annotation["image_id"], set()).add(categories[annotation["category_id"]])
            for image in images.values():
                name = _key(image)
                if self._file.setdefault(name, _file_name(image)) != _file_name(image):
                    raise InputError(f"{file} names {self._file[name]} and {_file_name(image)}; rename one of them.")
                self._images.setdefault(name, image)
                asked = set(categories.values())
                if "asked" in image.get("gazetteer", {}):  # as `gazetteer export` writes it
                    asked &= set(map(concept_name, image["gazetteer"]["asked"]))
                asked -= _not_asked(image, categories, shown.get(image["id"], set()))
                self._asked.setdefault(name, set()).update(asked)
                self._annotations.setdefault(name, [])
            for annotation in annotations:
                concept = categories[annotation["category_id"]]
                self._annotations[_key(images[annotation["image_id"]])].append((concept, annotation))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{file} is not COCO's JSON of images, annotations and categories ({error!r}).") from error
        return set(categories.values())

    def _unasked(self, key: str) -> frozenset[str]:
        """Concepts of crowds, of boxes without a mask, and those that no file that lists the picture knows of."""
        unsure = {
            concept
            for concept, annotation in self._annotations[key]
            if annotation.get("iscrowd") or not says_where(annotation)
        }
        return frozenset(unsure | (set(self.concepts) - self._asked[key]))


def _by_id(file: Path, what: str, entries: Iterable[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """The entries by their ids; InputError where two different ones have the same."""
    known: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        if known.setdefault(entry["id"], entry) != entry:
            raise InputError(f"{file} gives two {what} the id {entry['id']!r}; give each its own.")
    return known


def _once(annotations: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The annotations without those that are listed already: one that is there twice is one thing, not two."""
    known: dict[Any, list[dict[str, Any]]] = {}
    once = []
    for annotation in annotations:
        same = known.setdefault((annotation.get("id"), annotation["image_id"]), [])
        if annotation not in same:
            same.append(annotation)
            once.append(annotation)
    return once


def _not_asked(image: dict[str, Any], categories: dict[Any, str], shown: set[str]) -> set[str]:
    """What LVIS does not know of a picture."""
    unsure = {categories[c] for c in image.get("not_exhaustive_category_ids", ()) if c in categories}
    if "neg_category_ids" not in image:
        return unsure
    absent = {categories[c] for c in image["neg_category_ids"] if c in categories}
    return unsure | (set(categories.values()) - shown - absent)


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


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not COCO's JSON of images, annotations and categories.")
    return content


def _near(file: Path, split: str) -> Iterator[Path]:
    """Where the pictures of a JSON file usually lie."""
    own = split or file.stem.rpartition("_")[2]
    for root in (file.parent, file.parent.parent):
        yield from (root, root / own, root / "images", root / "images" / own)


def _key(image: dict[str, Any]) -> str:
    """What names a picture: its file without the suffix, as with other data sets."""
    return Path(_file_name(image)).with_suffix("").as_posix()


def _file_name(image: dict[str, Any]) -> str:
    """Where a picture lies; LVIS says its address on the web alone, which ends in COCO's folder and file."""
    if "file_name" in image or "coco_url" not in image:
        name: str = image["file_name"]
        return name
    return "/".join(urlsplit(image["coco_url"]).path.strip("/").split("/")[-2:])


def _names(name: str, image: dict[str, Any]) -> list[str]:
    """Where a picture may lie in the folder of pictures: LVIS' with the folder that its address names, or without."""
    return [name] if "file_name" in image else [name, Path(name).name]


def _leads_out(name: str) -> bool:
    """Whether a name is of a file that need not lie in the folder that it is looked for in."""
    return Path(name).is_absolute() or ".." in Path(name).parts


def _picture_folder(
    places: Iterable[Path], images: dict[str, dict[str, Any]], files: dict[str, str], what: str
) -> Path:
    """The first place with one of the first pictures: any of them may be missing.

    A name that leads out of its folder is there, or not, from any place: it says nothing, but where all are so.
    """
    tried = list(places)
    own_names = {key: _names(files[key], image) for key, image in images.items()}
    inside = [own for own in own_names.values() if not _leads_out(own[0])]
    names = (inside or list(own_names.values()))[:_LOOKED_FOR]
    folder = next((place for own in names for place in tried if any((place / name).is_file() for name in own)), None)
    if folder is None:
        near = ", ".join(map(str, tried[:4]))
        raise InputError(f"The picture {names[0][0]} of {what} is in none of {near}; set pictures.images.")
    return folder
