"""Pictures that came through: what the tables need of them is kept, and their masks are given up.

A mask takes a byte a pixel and a picture may have hundreds, so those of a whole shard would be many gigabytes: of each,
run lengths are kept, and how many of its pixels lie in the cells of the sites' grids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.core.sites import TEXT
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct, struct_to_mask
from gazetteer.data.tables.words import rows_of_words
from gazetteer.diffusion.runtime.beside import begin
from gazetteer.labeling.evidence.shard_masks import ImageEvidenceInput, pool_segments
from gazetteer.labeling.pipeline.shard import LabelledPicture

R = TypeVar("R")


@dataclass(frozen=True)
class FinishedPicture:
    """A picture's row of `images`, its rows of `segments`, and what evidence is counted from."""

    image: dict[str, Any]
    segments: list[dict[str, Any]]
    evidence: ImageEvidenceInput
    replayed: bool


class Closing(Generic[R]):
    """What is done with the pictures of a batch when its models are through, beside what goes on.

    The masks of one batch at most wait for it.
    """

    def __init__(self, work: Callable[[LabelledPicture], R]) -> None:
        self.work = work
        self._done: list[R] = []
        self._waiting: list[Callable[[], R]] = []

    def take(self, batch: Sequence[LabelledPicture]) -> None:
        """Begin with the pictures of a batch, when those of the one before are done."""
        self.done()
        self._waiting = [begin(self.work, labelled) for labelled in batch]

    def done(self) -> list[R]:
        """What became of all that were taken, when the last one is done."""
        while self._waiting:
            self._done.append(self._waiting.pop(0)())
        return self._done


def finished(labelled: LabelledPicture, heldout: float) -> FinishedPicture:
    """Write a picture as PNG, its masks as run lengths, and pool them to the grids of its codes.

    Raises:
        InputError: a mask of another size than its picture.
    """
    masks = _masks(labelled)
    given = ImageEvidenceInput(
        image_id=labelled.item.image_id,
        split=labelled.split(heldout),
        size=labelled.picture.image.shape[:2],
        asked=labelled.asked,
        segments=masks,
        codes=labelled.picture.codes,
        words=labelled.words or (),
    )
    grids = sorted({(m.height, m.width) for site, m in given.codes.items() if site.stream != TEXT})
    evidence = replace(given, segments=[], pooled=pool_segments(given, grids))
    return FinishedPicture(image_row(labelled, heldout), segment_rows(labelled), evidence, labelled.replayed)


def put_away(labelled: LabelledPicture) -> LabelledPicture:
    """The picture with run lengths in the place of its masks; as it is where nothing was cut out yet."""
    if not labelled.masks:
        return labelled
    return replace(labelled, rows=segment_rows(labelled), detections=[], masks=[])


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


def segment_rows(labelled: LabelledPicture) -> list[dict[str, Any]]:
    """The rows of `segments`; a box in which the segmenter found nothing is none."""
    if labelled.rows is not None:
        return labelled.rows
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
        for detection, mask in zip(labelled.detections, labelled.masks, strict=True)
        if mask.mask.any()
    ]


def _masks(labelled: LabelledPicture) -> list[tuple[str, NDArray[np.bool_]]]:
    """Concept and mask of every segment, wherever they are kept."""
    if labelled.rows is not None:
        return [(row["concept"], struct_to_mask(row["mask"])) for row in labelled.rows]
    pairs = zip(labelled.detections, labelled.masks, strict=True)
    return [(detection.concept, mask.mask) for detection, mask in pairs if mask.mask.any()]
