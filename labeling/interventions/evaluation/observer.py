"""Edited pictures beside unedited ones, and what a detector and a segmenter find in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gazetteer.data.inputs.edits import Edit
from gazetteer.diffusion.edit_sampler import EditSampler, Picture, Start
from gazetteer.labeling.detect.protocol import Detection, Detector
from gazetteer.labeling.interventions.evaluation.scores import score_centre
from gazetteer.labeling.segment.finder import cut_out
from gazetteer.labeling.segment.protocol import Segmenter


@dataclass(frozen=True)
class ObservedPicture:
    """What a picture shows.

    Attributes:
        present: the concepts that are found, sorted.
        masks: by concept that is found (and asked for), the union of its masks, bool [height, width].
        centres: by concept, x, y of its score map's centre of mass (`steer_scores.score_centre`), found or not.
    """

    present: tuple[str, ...]
    masks: dict[str, NDArray[np.bool_]]
    centres: dict[str, tuple[float, float]]


class EditObserver:
    """The models of an evaluation: draws edited pictures and looks at them, at each unedited one once."""

    def __init__(
        self,
        sampler: EditSampler,
        detector: Detector,
        segmenter: Segmenter | None,
        concepts: Sequence[str],
        threshold: float = 0.0,
    ) -> None:
        """`concepts` are asked of every picture, so that one which appears or vanishes is seen.

        threshold: lowest score of a box that counts as found; the detector may give weaker ones, for score maps.
        """
        self.sampler, self.saes, self.batch_size = sampler, sampler.saes, sampler.batch_size
        self.detector, self.segmenter, self.concepts = detector, segmenter, tuple(concepts)
        self.threshold = threshold
        self._found: dict[Start, ObservedPicture] = {}

    def base(self, starts: Sequence[Start]) -> list[Picture]:
        """The unedited pictures (`EditSampler.unedited`)."""
        return self.sampler.unedited(starts)

    def base_found(self, starts: Sequence[Start]) -> list[ObservedPicture]:
        """What the detector and segmenter find in the unedited pictures (`look`), in each once while it is cached."""
        pictures = dict(zip(starts, self.base(starts), strict=True))
        missing = [start for start in pictures if start not in self._found]
        if missing and len(self._found) + len(missing) > self.sampler.cache:
            self._found = {start: self._found[start] for start in pictures if start in self._found}
        self._found |= zip(missing, self.look([pictures[start] for start in missing]), strict=True)
        return [self._found[start] for start in starts]

    def edited(self, starts: Sequence[Start], edits: Sequence[Sequence[Edit]], stage: str) -> list[Picture]:
        """One picture a start, each with its own edits, whose windows lie in the stage (`EditSampler.edited`)."""
        return self.sampler.edited(starts, edits, stage)

    def look(self, pictures: Sequence[Picture], masked: Sequence[Sequence[str]] | None = None) -> list[ObservedPicture]:
        """What the detector and segmenter find in every picture.

        masked: per picture the concepts whose masks are wanted, as far as they are found; None: of all.
        """
        results: list[ObservedPicture] = []
        for i in range(0, len(pictures), self.batch_size):
            batch = pictures[i : i + self.batch_size]
            asked = [self.concepts] * len(batch) if masked is None else masked[i : i + self.batch_size]
            detected = self.detector.detect(batch, [self.concepts] * len(batch))
            sure = [[detection for detection in own if detection.score >= self.threshold] for own in detected]
            cut = [
                [detection for detection in own if detection.concept in wanted]
                for own, wanted in zip(sure, asked, strict=True)
            ]
            masks = cut_out(self.segmenter, batch, cut)
            for picture, every, certain, own, segments in zip(batch, detected, sure, cut, masks, strict=True):
                unions: dict[str, NDArray[np.bool_]] = {}
                for detection, segment in zip(own, segments, strict=True):
                    if segment.mask.any():
                        before = unions.get(detection.concept)
                        unions[detection.concept] = segment.mask if before is None else before | segment.mask
                present = tuple(sorted({detection.concept for detection in certain}))
                results.append(ObservedPicture(present, unions, self._centres(every, picture.shape[:2])))
        return results

    def _centres(self, detections: Sequence[Detection], size: tuple[int, ...]) -> dict[str, tuple[float, float]]:
        centres = {}
        for concept in dict.fromkeys(detection.concept for detection in detections):
            scored = [(detection.box, detection.score) for detection in detections if detection.concept == concept]
            centre = score_centre(scored, size[0], size[1])
            if centre is not None:
                centres[concept] = centre
        return centres
