"""Where a run's pictures come from when they are given (`gazetteer.data.inputs.given.open`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt, Le

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Effect, OneOf, setting, settings

KINDS = ("coco", "ade20k", "voc", "table")


def given_setting(config: Mapping[str, Any]) -> str:
    """The setting of a run's that names its pictures, where they were given; empty where they were drawn."""
    return next((key for key in (f"pictures.{kind}" for kind in KINDS) if config.get(key)), "")


@settings("pictures")
class PicturesConfig:
    """Pictures with masks that are given instead of generated; at most one of `coco`, `ade20k`, `voc`, `table`."""

    coco: str = setting(
        Effect.PICTURES,
        "A folder with COCO JSON (instances, stuff, captions; in it or in ``annotations/``), or one JSON file, which "
        "``stuff_`` and ``captions_`` files of its name beside it join. LVIS too.",
        default="", path=True, late=True,
    )  # fmt: skip
    ade20k: str = setting(
        Effect.PICTURES,
        "A folder as ADEChallengeData2016: ``images/``, ``annotations/`` and ``objectInfo150.txt``.",
        default="", path=True, late=True,
    )  # fmt: skip
    voc: str = setting(
        Effect.PICTURES,
        "A folder as VOC2012: ``JPEGImages/``, ``SegmentationClass/``, ``SegmentationObject/``; and as wanted "
        "``class_names.txt`` and ``asked.json`` (by picture the concepts that were asked of it).",
        default="", path=True, late=True,
    )  # fmt: skip
    table: str = setting(
        Effect.PICTURES,
        "A folder with the tables ``images/`` and ``segments/`` of a run, or a CSV, JSON lines or Parquet file with a "
        "row a mask: ``image``, ``concept``, ``mask``, and as wanted ``caption`` and ``crowd``.",
        default="", path=True, late=True,
    )  # fmt: skip
    images: str = setting(
        Effect.NOTHING, "COCO's folder of pictures, where it does not lie beside the JSON.", default="", path=True,
        late=True,
    )  # fmt: skip
    split: str = setting(
        Effect.PICTURES,
        "Of the data set, as its own files name it (``val2017``, ``validation``, ``trainval``); empty: all there is. "
        "In the name of a JSON file it stands by itself, with or without its year: ``val`` in ``instances_val2017``.",
        default="", late=True,
    )  # fmt: skip
    concepts: tuple[str, ...] = setting(
        Effect.PICTURES, "Only these of the data set's categories; empty: all.", default=(), late=True
    )
    caption: Annotated[str, OneOf(("own", "empty"))] = setting(
        Effect.PICTURES,
        "What the denoiser is told of a picture: ``own``, its caption where there is one, or the ``empty`` prompt.",
        default="own", late=True,
    )  # fmt: skip
    fit: Annotated[str, OneOf(("crop", "squash"))] = setting(
        Effect.PICTURES, "How a picture of another shape gets the model's: cut at its edges, or squashed.",
        default="crop", late=True,
    )  # fmt: skip
    ignored: Annotated[float, Gt(0), Le(1)] = setting(
        Effect.PICTURES,
        "A picture of which, at the model's size, more than this share is marked to be ignored is a failure; fewer "
        "such pixels belong to no concept, and what fires in cells that are mostly ignored overlaps with none.",
        default=0.5, late=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        named = [kind for kind in KINDS if getattr(self, kind)]
        if len(named) > 1:
            raise InputError(f"pictures.{named[0]} and pictures.{named[1]} are both set; pictures come from one place.")

    @property
    def kind(self) -> str:
        """Which of `KINDS` is set, or empty: pictures are generated."""
        return next((kind for kind in KINDS if getattr(self, kind)), "")

    @property
    def path(self) -> str:
        """What is read."""
        return getattr(self, self.kind) if self.kind else ""
