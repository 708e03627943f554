"""COCO JSON: instances, stuff and captions.

A crowd region (``iscrowd``, or ``ignore``) covers many of a kind without saying which pixels are theirs, and a box
without a mask, or a mask without a pixel, does not say it either: its picture leaves that category unasked, as LVIS'
``not_exhaustive_category_ids`` do; with LVIS' ``neg_category_ids`` only what is there or is said to be absent is asked.
Where files are joined (instances and stuff), a picture is asked for the categories of those that list it. Of COCO stuff
the category "other" (183), which stands for all things, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gazetteer.data.core.complaints import suggestion
from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.coco_files import (
    annotation_files,
    file_name,
    near,
    picture_folder,
    picture_key,
    places_of,
    read_content,
)
from gazetteer.data.inputs.given.coco_masks import decoded, is_crowd, says_where, shows_nothing
from gazetteer.data.inputs.given.names import concept_names, require_once
from gazetteer.data.inputs.given.picture import GivenPicture, concept_name, read_picture

OTHER = 183, "other"
"""Id and name of what COCO stuff calls all things; another data set may have a category of that name."""


class CocoPictures:
    """A COCO data set; see `gazetteer.data.inputs.given.picture.GivenPictures`."""

    def __init__(self, path: str, images: str = "", split: str = "") -> None:
        """Raises InputError: no JSON there, several where one is needed, or JSON that is not COCO's."""
        files = [(file, read_content(file)) for file in annotation_files(Path(path), split)]
        self._captions: dict[str, str] = {}
        self._images: dict[str, dict[str, Any]] = {}
        self._file: dict[str, str] = {}
        self._annotations: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._asked: dict[str, set[str]] = {}  # by picture, of the files that list it
        self.notes: tuple[str, ...] = ()
        self._names = _names_of(files)
        names: set[str] = set()
        for file, content in files:
            with _as_coco(file):
                names |= self._add(file, content) if "categories" in content else set()
        for file, content in files:  # captions last, which join what is there
            with _as_coco(file):
                if "categories" not in content:
                    self._caption(file, content)
        self.concepts = tuple(sorted(names))
        if not self.concepts or not self._images:
            raise InputError(f"{path} names no {'picture' if self.concepts else 'category'} with masks.")
        self.keys = tuple(sorted(self._images))
        self._unasked = {key: self._unsure(key) for key in self.keys}
        self._tell_of_nothing()
        self.uncertain = frozenset().union(*self._unasked.values())
        self._folder = picture_folder(
            [Path(images)] if images else near(files[0][0], split), self._images, self._file, path
        )

    def caption(self, key: str) -> str:
        """The first caption of a picture."""
        return self._captions.get(key, "")

    def files(self, key: str) -> tuple[Path, ...]:
        """Its picture; the masks are in the JSON."""
        places = [self._folder / name for name in places_of(self._file[key], self._images[key])]
        return (next((place for place in places if place.is_file()), places[0]),)

    def read(self, key: str) -> GivenPicture:
        """A picture with its instances; crowds are no instances."""
        about = self._images[key]
        image = read_picture(self.files(key)[0], (about.get("height"), about.get("width")))
        height, width = image.shape[:2]
        stated = (about.get("height", height), about.get("width", width))
        if stated != (height, width):
            raise InputError(
                f"The picture {key} measures {height} × {width}, its annotations say {stated[0]} × {stated[1]}."
            )
        segments = []
        for concept, annotation in self._annotations[key]:
            if concept not in self._unasked[key]:
                mask = decoded(annotation, height, width, key)
                if not mask.any():  # of pictures whose size is stated it is known before
                    raise InputError(f"An annotation of {concept} in {key} has no pixel inside the picture.")
                segments.append((concept, mask))
        said = about.get("gazetteer", {}).get("ignored")  # as `gazetteer export` writes it
        ignored = None if said is None else decoded({"segmentation": said}, height, width, key)
        return GivenPicture(image, tuple(segments), self._unasked[key], ignored)

    def _caption(self, file: Path, content: dict[str, Any]) -> None:
        """Take in a file of captions, which have no categories."""
        images = _by_id(file, "pictures", content["images"])
        named = [(picture_key(images[own["image_id"]]), str(own["caption"]).strip()) for own in content["annotations"]]
        lost = [key for key, _ in named if key not in self._images]
        if lost and len(lost) == len(named):
            raise InputError(
                f"No caption of {file} is of a picture that has masks: it names {lost[0]}, the masks' file "
                f"{min(self._images, default='none')}; name them alike."
            )
        if lost:
            self.notes += (
                f"{len(lost)} captions of {len(named)} in {file} name no picture with masks, such as {lost[0]}.",
            )
        for key, caption in named:
            self._captions.setdefault(key, caption)

    def _add(self, file: Path, content: dict[str, Any]) -> set[str]:
        """Take in one file; returns its concepts."""
        images = _by_id(file, "pictures", content["images"])
        annotations = _once(content["annotations"])
        if any("segments_info" in annotation for annotation in annotations[:1]):
            raise InputError(f"{file} is of panoptic masks; name the instances and stuff files instead.")
        entries = _by_id(file, "categories", content["categories"])
        categories = {number: self._names[category["name"]] for number, category in entries.items()}
        if OTHER in categories.items():
            del categories[OTHER[0]]
            annotations = [annotation for annotation in annotations if annotation["category_id"] != OTHER[0]]
        if nameless := [number for number, name in categories.items() if not name]:
            raise InputError(f"{file} gives the category {nameless[0]!r} no name; a concept has one.")
        require_once(categories.items(), str(file))
        own: dict[Any, list[tuple[str, dict[str, Any]]]] = {number: [] for number in images}
        for annotation in annotations:
            for name in ("iscrowd", "ignore"):
                if annotation.get(name, 0) not in (0, 1, None):
                    raise InputError(f"{file} has the {name} {annotation[name]!r}; accepted: 0, 1.")
            own[annotation["image_id"]].append((categories[annotation["category_id"]], annotation))
        if self._images and images and not any(picture_key(image) in self._images for image in images.values()):
            raise InputError(
                f"No picture of {file} is one of the other file's: it names {picture_key(next(iter(images.values())))}"
                f", the other {min(self._images)}; name them alike."
            )
        for image in images.values():
            _require_size(file, image)
            name = picture_key(image)
            if self._file.setdefault(name, file_name(image)) != file_name(image):
                raise InputError(f"{file} names {self._file[name]} and {file_name(image)}; rename one of them.")
            self._images.setdefault(name, image)
            asked = self._asked_of(file, image, set(categories.values()), own[image["id"]])
            asked -= _not_asked(image, categories, {concept for concept, _ in own[image["id"]]})
            self._asked.setdefault(name, set()).update(asked)
            self._annotations.setdefault(name, []).extend(own[image["id"]])
        return set(categories.values())

    def _asked_of(
        self, file: Path, image: dict[str, Any], concepts: set[str], own: list[tuple[str, dict[str, Any]]]
    ) -> set[str]:
        """What a picture was asked, as `gazetteer export` writes it; without that, everything."""
        said = image.get("gazetteer", {}).get("asked")
        if said is None:
            return set(concepts)
        key = picture_key(image)
        if not (isinstance(said, list) and all(isinstance(name, str) for name in said)):
            raise InputError(f"{file} says that {key} was asked {said!r}; accepted: a list of text.")
        asked = {self._names.get(name, concept_name(name)) for name in said}
        if unknown := sorted(asked - concepts):
            raise InputError(
                f"{file} says that {key} was asked {unknown[0]!r}, which is no category there; "
                f"{suggestion(unknown[0], sorted(concepts))}"
            )
        drawn = {concept for concept, annotation in own if says_where(annotation) and not is_crowd(annotation)}
        if contradicted := sorted(drawn - asked):
            raise InputError(
                f"{file} has a mask of {contradicted[0]} in {key}, but says that {key} was not asked it "
                "(gazetteer.asked); name it there, or take the mask out."
            )
        return asked

    def _unsure(self, key: str) -> frozenset[str]:
        """Concepts of crowds, of boxes without a mask, and those that no file that lists the picture knows of."""
        unsure = {
            concept
            for concept, annotation in self._annotations[key]
            if is_crowd(annotation) or not says_where(annotation)
        }
        return frozenset(unsure | (set(self.concepts) - self._asked[key]))

    def _tell_of_nothing(self) -> None:
        """Leave what a mask outside its picture is of unasked there: somebody saw it, and it is not known where."""
        beyond = [
            (key, concept)
            for key, image in self._images.items()
            if image.get("height") and image.get("width")
            for concept, annotation in self._annotations[key]
            if concept not in self._unasked[key] and shows_nothing(annotation, image["height"], image["width"])
        ]
        for key, concept in beyond:
            self._unasked[key] |= {concept}
        if beyond:
            self.notes += (
                f"{len(beyond)} annotations have no pixel inside their picture, such as one of {beyond[0][1]} in "
                f"{beyond[0][0]}; their pictures are not asked for these concepts.",
            )


@contextmanager
def _as_coco(file: Path) -> Iterator[None]:
    """InputError for what is missing or of another kind in a file."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{file} is not COCO's JSON of images, annotations and categories ({error!r}).") from error


def _names_of(files: Iterable[tuple[Path, dict[str, Any]]]) -> dict[str, str]:
    """The concept of every category's name, of all files together."""
    names: set[str] = set()
    for file, content in files:
        with _as_coco(file):
            names.update(category["name"] for category in content.get("categories", ()))
            concept_names(names)
    return concept_names(names)


def _require_size(file: Path, image: dict[str, Any]) -> None:
    for side in ("height", "width"):
        if image.get(side) is not None and type(image[side]) not in (int, float):
            raise InputError(
                f"{file} gives {picture_key(image)} the {side} {image[side]!r}, which is no number of pixels."
            )


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
    for name in ("not_exhaustive_category_ids", "neg_category_ids"):
        if not isinstance(image.get(name, []), list):
            raise TypeError(f"{name} of {picture_key(image)} is no list")
    unsure = {categories[c] for c in image.get("not_exhaustive_category_ids", ()) if c in categories}
    if "neg_category_ids" not in image:
        return unsure
    absent = {categories[c] for c in image["neg_category_ids"] if c in categories}
    return unsure | (set(categories.values()) - shown - absent)
