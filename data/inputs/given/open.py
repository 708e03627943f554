"""Open the pictures that a configuration names, and give every picture the seed and split that are its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from gazetteer.data.core.complaints import suggestion
from gazetteer.data.core.digests import digest_file, digest_json, digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.ade20k import AdePictures
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.coco_files import annotation_files
from gazetteer.data.inputs.given.config import KINDS, PicturesConfig
from gazetteer.data.inputs.given.contents import require_content
from gazetteer.data.inputs.given.picture import BadPicture, GivenPicture, GivenPictures
from gazetteer.data.inputs.given.table import TablePictures
from gazetteer.data.inputs.given.voc import VocPictures
from gazetteer.data.inputs.prompts import Item, digest_parts, make_item


class GivenSet:
    """The given pictures of a run: of the categories those that are wanted, captions as configured.

    Attributes:
        concepts: sorted; `base` those of them that are known of every picture.
        notes: sentences about what of the data set is not used, and what is doubtful.
    """

    def __init__(self, config: PicturesConfig, seed: int) -> None:
        """Raises InputError when nothing readable lies there, or a wanted concept is no category."""
        self.config = config
        self._source = _source(config)
        unknown = [name for name in config.concepts if name not in self._source.concepts]
        if unknown:
            raise InputError(
                f"pictures.concepts names {unknown[0]!r}, which is no category there; "
                f"{suggestion(unknown[0], self._source.concepts)}"
            )
        wanted = set(config.concepts or self._source.concepts)
        self.concepts = tuple(sorted(wanted))
        self.base = tuple(sorted(wanted - self._source.uncertain))
        self.notes = self._source.notes
        self._key = {_seed(seed, key): key for key in self._source.keys}
        if len(self._key) != len(self._source.keys):
            raise InputError("Two given pictures come to the same seed; set another seed.")

    def items(self, count: int, fingerprint: str) -> list[Item]:
        """At most `count` of the pictures as items, the same ones whatever their order on disk."""
        seeds = sorted(self._key)[:count]  # seeds are digests, so these are drawn at random
        return [make_item(self._caption(self._key[seed]), seed, fingerprint) for seed in seeds]

    def __len__(self) -> int:
        return len(self._key)

    def files(self, item: Item) -> tuple[Path, ...]:
        """What is read of an item's own, the picture and its masks; InputError where it is not of this set."""
        return self._source.files(self._named(item))

    def read(self, item: Item, content: str = "") -> GivenPicture:
        """The picture of an item, with the concepts that are wanted.

        Args:
            content: of its files, as they were when the run was started (`gazetteer.data.inputs.given.contents`).

        Raises:
            InputError: it is not of this set, or another picture than the run was started with.
            BadPicture: it cannot be read.
        """
        key = self._named(item)
        try:
            given = self._source.read(key)
        except InputError as error:
            raise BadPicture(str(error)) from error
        require_content(self._source.files(key), content)
        wanted = set(self.concepts)
        segments = tuple((concept, mask) for concept, mask in given.segments if concept in wanted)
        return replace(given, segments=segments, unasked=given.unasked & wanted)

    def fitted(self, item: Item, height: int, width: int, content: str = "") -> GivenPicture:
        """The same at the model's size, cut or squashed as configured.

        Raises:
            InputError: as `read`.
            BadPicture: as `read`, or too much of what is left of it is marked to be ignored.
        """
        given = self.read(item, content).fitted(height, width, self.config.fit)
        if given.ignored is not None and given.ignored.mean() > self.config.ignored:
            left = "what is left of " if self.config.fit == "crop" else ""
            raise BadPicture(
                f"{given.ignored.mean():.0%} of {left}{self._named(item)} at the model's size is marked to be ignored"
            )
        return given

    def _named(self, item: Item) -> str:
        if item.seed not in self._key:
            raise InputError(f"The picture {item.image_id} of the plan is not among the given ones any more.")
        return self._key[item.seed]

    def _caption(self, key: str) -> str:
        return self._source.caption(key).strip() if self.config.caption == "own" else ""


@lru_cache(maxsize=2)
def open_given(config: PicturesConfig, seed: int) -> GivenSet:
    """The set that a configuration names; read once a process. Raises as `GivenSet`."""
    return GivenSet(config, seed)


def annotations_digest(config: PicturesConfig) -> str:
    """``sha256:`` and the digest of what says which pictures are given and what they show, all of it but the pictures'
    own files (`gazetteer.data.inputs.given.contents`); the name itself where nothing lies there, as `digest_path`.

    Raises:
        InputError: as opening them does, where they are listed by a folder, or of a file that cannot be read.
    """
    path = Path(config.path)
    if config.kind == "table" or not path.exists():
        return digest_path(config.path)
    if config.kind == "coco":
        files = annotation_files(path, config.split)
        if files == [path]:
            return digest_path(config.path)
        return _digest_of(files)
    source = _listed(config)
    return _digest_of(source.annotations, source.keys)


def given_split(seed: int, heldout: float) -> str:
    """``discovery`` or ``heldout``: by the picture itself, as many have the same caption, or none."""
    place = int(digest_parts("given", str(seed))[:13], 16) / 16**13
    return "heldout" if place < heldout else "discovery"


def expect_given_whole(config: PicturesConfig) -> None:
    """InputError when something is said of given pictures but not where they are."""
    said = [name for name in ("images", "split", "concepts") if getattr(config, name)]
    if said and not config.kind:
        raise InputError(f"pictures.{said[0]} is set, but none of {', '.join(f'pictures.{kind}' for kind in KINDS)}.")
    if config.images and config.kind != "coco":
        raise InputError("pictures.images is the folder of COCO's pictures and needs pictures.coco.")


def _source(config: PicturesConfig) -> GivenPictures:
    expect_given_whole(config)
    if config.kind == "coco":
        return CocoPictures(config.coco, config.images, config.split)
    if config.kind in ("ade20k", "voc"):
        return _listed(config)
    if config.split:
        raise InputError("pictures.split is of COCO, ADE20K and VOC; a table has none.")
    return TablePictures(config.table)


def _digest_of(files: Sequence[Path], keys: Sequence[str] = ()) -> str:
    return f"sha256:{digest_json([[[file.name, digest_file(file)] for file in files], list(keys)])}"


def _listed(config: PicturesConfig) -> AdePictures | VocPictures:
    """A data set whose pictures are what its folders hold."""
    return (AdePictures if config.kind == "ade20k" else VocPictures)(config.path, config.split)


def _seed(base: int, key: str) -> int:
    """A picture's seed, from which its noise is drawn: of the run's seed and its name."""
    return int.from_bytes(hashlib.sha256(f"{base}/given/{key}".encode()).digest()[:6], "big")
