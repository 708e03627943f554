"""Open the pictures that a configuration names, and give every picture the seed and split that are its own."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache

from gazetteer.data.core.complaints import suggestion
from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.ade20k import AdePictures
from gazetteer.data.inputs.given.coco import CocoPictures
from gazetteer.data.inputs.given.config import KINDS, PicturesConfig
from gazetteer.data.inputs.given.picture import GivenPicture, GivenPictures
from gazetteer.data.inputs.given.table import TablePictures
from gazetteer.data.inputs.given.voc import VocPictures
from gazetteer.data.inputs.prompts import Item, digest_parts, make_item


class GivenSet:
    """The given pictures of a run: of the categories those that are wanted, captions as configured.

    Attributes:
        concepts: sorted; `base` those of them that are known of every picture.
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
        self._key = {_seed(seed, key): key for key in self._source.keys}
        if len(self._key) != len(self._source.keys):
            raise InputError("Two given pictures come to the same seed; set another seed.")

    def items(self, count: int, fingerprint: str) -> list[Item]:
        """At most `count` of the pictures as items, the same ones whatever their order on disk."""
        seeds = sorted(self._key)[:count]  # seeds are digests, so these are drawn at random
        return [make_item(self._caption(self._key[seed]), seed, fingerprint) for seed in seeds]

    def __len__(self) -> int:
        return len(self._key)

    def read(self, item: Item) -> GivenPicture:
        """The picture of an item, with the concepts that are wanted.

        Raises:
            InputError: it cannot be read, or is not of this set.
            ValueError: too much of it is marked to be ignored.
        """
        if item.seed not in self._key:
            raise InputError(f"The picture {item.image_id} of the plan is not among the given ones any more.")
        given = self._source.read(self._key[item.seed])
        if given.ignored is not None and given.ignored.mean() > self.config.ignored:
            raise ValueError(f"{given.ignored.mean():.0%} of {self._key[item.seed]} is marked to be ignored")
        wanted = set(self.concepts)
        segments = tuple((concept, mask) for concept, mask in given.segments if concept in wanted)
        return replace(given, segments=segments, unasked=given.unasked & wanted)

    def _caption(self, key: str) -> str:
        return self._source.caption(key).strip() if self.config.caption == "own" else ""


@lru_cache(maxsize=2)
def open_given(config: PicturesConfig, seed: int) -> GivenSet:
    """The set that a configuration names; read once a process. Raises as `GivenSet`."""
    return GivenSet(config, seed)


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
    if config.kind == "ade20k":
        return AdePictures(config.ade20k, config.split)
    if config.kind == "voc":
        return VocPictures(config.voc, config.split)
    if config.split:
        raise InputError("pictures.split is of COCO, ADE20K and VOC; a table has none.")
    return TablePictures(config.table)


def _seed(base: int, key: str) -> int:
    """A picture's seed, from which its noise is drawn: of the run's seed and its name."""
    return int.from_bytes(hashlib.sha256(f"{base}/given/{key}".encode()).digest()[:6], "big")
