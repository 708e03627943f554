"""A shard on its way through the stages: its pictures, what was found in them, and the rows that become of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.given.open import given_split
from gazetteer.data.inputs.prompts import Item, split_of
from gazetteer.data.tables.codes import Moment
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.words import PromptWord, rows_of_words
from gazetteer.diffusion.generate import Picture
from gazetteer.diffusion.runtime.beside import begin
from gazetteer.labeling.detect.protocol import Detection
from gazetteer.labeling.evidence.counts import ImageEvidenceInput
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
    """

    item: Item
    picture: Picture
    asked: tuple[str, ...] = ()
    detections: list[Detection] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    replayed: bool = False
    given: bool = False
    words: tuple[PromptWord, ...] | None = None

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


Rows = tuple[Callable[[], dict[str, Any]], Callable[[], list[dict[str, Any]]]]
"""What waits for a picture's row of `images`, and for those of `segments`."""


def begin_rows(labelled: LabelledPicture, heldout: float) -> Rows:
    """Write a picture as PNG and its masks as run lengths, beside what goes on."""
    return begin(image_row, labelled, heldout), begin(segment_rows, labelled)


def image_row(labelled: LabelledPicture, heldout: float) -> dict[str, Any]:
    """The row of `images`."""
    height, width = labelled.picture.image.shape[:2]
    return {
        "image_id": labelled.item.image_id,
        "prompt": labelled.item.prompt,
        "seed": labelled.item.seed,
        "split": labelled.split(heldout),
        "image": {"bytes": encode_image(labelled.picture.image), "path": f"{labelled.item.image_id}.png"},
        "width": width,
        "height": height,
        "asked": list(labelled.asked),
        "tokens_cut": labelled.picture.tokens_cut,
        "words": None if labelled.words is None else rows_of_words(labelled.words),
    }


def evidence_input(labelled: LabelledPicture, heldout: float) -> ImageEvidenceInput:
    """What evidence is counted from."""
    return ImageEvidenceInput(
        image_id=labelled.item.image_id,
        split=labelled.split(heldout),
        size=labelled.picture.image.shape[:2],
        asked=labelled.asked,
        segments=[(d.concept, m.mask) for d, m in _pairs(labelled)],
        codes=labelled.picture.codes,
        words=labelled.words or (),
    )


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


def _pairs(labelled: LabelledPicture) -> list[tuple[Detection, Mask]]:
    """Detections with a mask; a box in which the segmenter found nothing is no segment."""
    return [(d, m) for d, m in zip(labelled.detections, labelled.masks, strict=True) if m.mask.any()]


def segment_rows(labelled: LabelledPicture) -> list[dict[str, Any]]:
    """The rows of `segments`."""
    return [
        {
            "image_id": labelled.item.image_id,
            "concept": detection.concept,
            "score": detection.score,
            "box": list(detection.box),
            "area": int(np.count_nonzero(mask.mask)),
            "predicted_iou": mask.predicted_iou,
            "mask": mask_to_struct(mask.mask),
        }
        for detection, mask in _pairs(labelled)
    ]


def failure_row(stage: str, item: str, error: Exception, attempts: int) -> dict[str, Any]:
    """The row of `failures` of an item that raised `error`."""
    spoken = str(error).strip() or ("out of memory" if isinstance(error, MemoryError) else "it gave no reason")
    message = spoken.splitlines()[0]
    return {"stage": stage, "item": item, "error": type(error).__name__, "message": message, "attempts": attempts}
