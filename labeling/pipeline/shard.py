"""A shard on its way through the stages: its pictures, what was found in them, and the rows that become of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.given.open import given_split
from gazetteer.data.inputs.prompts import Item, split_of
from gazetteer.data.tables.codes import Moment
from gazetteer.data.tables.words import PromptWord
from gazetteer.diffusion.generate import Picture
from gazetteer.labeling.detect.protocol import Detection
from gazetteer.labeling.segment.protocol import Mask


@dataclass
class ShardResult:
    """The tables of one shard (schemas.PART_TABLES), seconds spent per stage, and plain counts.

    explained: the variance that the autoencoders explain, per site, with the first shard of a worker; else empty.
    notes: what its workers warned of.
    """

    tables: dict[str, pa.Table]
    seconds: dict[str, float]
    counts: dict[str, int]
    explained: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class LabelledPicture:
    """One picture on its way through the stages.

    Attributes:
        replayed: taken over from another run with all that was found in it; only its codes are new.
        given: not generated, and its masks neither; `asked` and the segments are people's.
        words: of the prompt in the text stream; None where no site listens to it.
        rows: of `segments`, when detections and masks were given up for them (`pipeline.finished.put_away`).
    """

    item: Item
    picture: Picture
    asked: tuple[str, ...] = ()
    detections: list[Detection] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    replayed: bool = False
    given: bool = False
    words: tuple[PromptWord, ...] | None = None
    rows: list[dict[str, Any]] | None = None

    def split(self, heldout: float) -> str:
        """``discovery`` or ``heldout``: all pictures of one prompt on one side, given ones by themselves."""
        return given_split(self.item.seed, heldout) if self.given else split_of(self.item.prompt, heldout)


@dataclass
class Unfinished:
    """A shard between stages that different workers do.

    Attributes:
        pictures: those that came through so far.
        failures: rows of those that did not.
        seconds: per stage so far.
        moments: when each site is captured, for the codes table.
        explained, notes: as in `ShardResult`.
    """

    pictures: list[LabelledPicture]
    failures: list[dict[str, Any]]
    seconds: dict[str, float]
    moments: dict[Site, Moment]
    explained: dict[str, float]
    notes: tuple[str, ...] = ()


def drawn(batch: Sequence[LabelledPicture], failures: list[dict[str, Any]]) -> list[LabelledPicture]:
    """Those pictures that show what the model drew; those that its safety checker blacked out become failures."""
    failures += [
        {
            "stage": "generate", "item": labelled.item.image_id, "error": "BlackedOut", "attempts": 1,
            "message": "the model's safety checker blacked it out; model.safety_checker=false leaves that out",
        }
        for labelled in batch
        if labelled.picture.blacked_out
    ]  # fmt: skip
    return [labelled for labelled in batch if not labelled.picture.blacked_out]


def id_of(item_or_picture: Any) -> str:
    """The picture's id, of an item or of a picture on its way."""
    item = item_or_picture.item if isinstance(item_or_picture, LabelledPicture) else item_or_picture
    return str(item.image_id)


def failure_row(stage: str, item: str, error: Exception, attempts: int) -> dict[str, Any]:
    """The row of `failures` of an item that raised `error`."""
    spoken = str(error).strip() or ("out of memory" if isinstance(error, MemoryError) else "it gave no reason")
    message = spoken.splitlines()[0]
    return {"stage": stage, "item": item, "error": type(error).__name__, "message": message, "attempts": attempts}
