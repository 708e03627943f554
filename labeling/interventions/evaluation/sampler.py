"""Draw edited pictures beside unedited ones, many edits to a batch, from latents kept at each stage's first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import STAGES, Edit
from gazetteer.diffusion.draw import pictures_of
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.resume import can_resume, keep_latents, resumed_at
from gazetteer.diffusion.steer import steer
from gazetteer.labeling.detect.protocol import Detection, Detector
from gazetteer.labeling.interventions.evaluation.scores import score_centre
from gazetteer.labeling.segment.protocol import Segmenter
from gazetteer.sae.model.autoencoder import SparseAutoencoder

Picture = NDArray[np.uint8]

KEPT = 256
"""Starts whose unedited pictures and latents are remembered."""


@dataclass(frozen=True)
class Found:
    """What a picture shows.

    Attributes:
        present: the concepts that are found, sorted.
        masks: by concept that is found (and asked for), the union of its masks, bool [height, width].
        centres: by concept, x, y of its score map's centre of mass (`steer_scores.score_centre`), found or not.
    """

    present: tuple[str, ...]
    masks: dict[str, NDArray[np.bool_]]
    centres: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Start:
    """Where a picture comes from: its prompt and the seed of its noise."""

    prompt: str
    seed: int


@dataclass
class _Base:
    picture: Picture
    latents: dict[str, Tensor] = field(default_factory=dict)
    found: Found | None = None


class Bench:
    """The models of an evaluation, and the unedited picture of every start that was asked for."""

    def __init__(
        self,
        generator: Generator,
        saes: Mapping[Site, SparseAutoencoder],
        detector: Detector,
        segmenter: Segmenter,
        concepts: Sequence[str],
        batch_size: int = 8,
        threshold: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        """`concepts` are asked of every picture, so that one which appears or vanishes is seen.

        threshold: lowest score of a box that counts as found; the detector may give weaker ones, for score maps.
        dtype: in which the pictures are sampled, unedited ones too: with ``bfloat16``, what torch.autocast does in it.
        """
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.generator, self.pipe, self.saes = generator, generator.pipe, saes
        self.detector, self.segmenter, self.concepts = detector, segmenter, tuple(concepts)
        self.batch_size, self.threshold = batch_size, threshold
        self.schedule = generator.schedule
        self.first = {stage: self._first_step(window) for stage, window in STAGES.items()}
        self._bases: dict[Start, _Base] = {}

    def base(self, starts: Sequence[Start]) -> list[Picture]:
        """The unedited pictures, each drawn once as long as at most `KEPT` are known."""
        missing = [start for start in dict.fromkeys(starts) if start not in self._bases]
        if missing and len(self._bases) + len(missing) > KEPT:
            self._bases = {start: self._bases[start] for start in dict.fromkeys(starts) if start in self._bases}
        for i in range(0, len(missing), self.batch_size):
            self._draw_bases(missing[i : i + self.batch_size])
        return [self._bases[start].picture for start in starts]

    def base_found(self, starts: Sequence[Start]) -> list[Found]:
        """What the detector and segmenter find in the unedited pictures (`look`), each judged once."""
        self.base(starts)
        missing = [start for start in dict.fromkeys(starts) if self._bases[start].found is None]
        for start, found in zip(missing, self.look([self._bases[start].picture for start in missing]), strict=True):
            self._bases[start].found = found
        return [self._bases[start].found or Found((), {}, {}) for start in starts]

    def edited(self, starts: Sequence[Start], edits: Sequence[Sequence[Edit]], stage: str) -> list[Picture]:
        """One picture a start, each with its own edits, whose windows lie in the stage."""
        self.base(starts)
        done: list[Picture] = []
        for i in range(0, len(starts), self.batch_size):
            some = starts[i : i + self.batch_size]
            mine = [
                replace(edit, images=(place,))
                for place, own in enumerate(edits[i : i + self.batch_size])
                for edit in own
            ]
            latents = torch.cat([self._bases[start].latents[stage] for start in some])
            with resumed_at(self.pipe, self.first[stage]), steer(self.pipe, mine, self.saes, schedule=self.schedule):
                done += self._call(some, latents)
        return done

    def look(self, pictures: Sequence[Picture], masked: Sequence[Sequence[str]] | None = None) -> list[Found]:
        """What the detector and segmenter find in every picture.

        masked: per picture the concepts whose masks are wanted, as far as they are found; None: of all.
        """
        results: list[Found] = []
        for i in range(0, len(pictures), self.batch_size):
            some = pictures[i : i + self.batch_size]
            asked = [self.concepts] * len(some) if masked is None else masked[i : i + self.batch_size]
            detected = self.detector.detect(some, [self.concepts] * len(some))
            sure = [[one for one in own if one.score >= self.threshold] for own in detected]
            cut = [[one for one in own if one.concept in mine] for own, mine in zip(sure, asked, strict=True)]
            masks = self.segmenter.segment(some, [[one.box for one in own] for own in cut])
            for picture, every, found, own, segments in zip(some, detected, sure, cut, masks, strict=True):
                unions: dict[str, NDArray[np.bool_]] = {}
                for one, segment in zip(own, segments, strict=True):
                    if segment.mask.any():
                        before = unions.get(one.concept)
                        unions[one.concept] = segment.mask if before is None else before | segment.mask
                present = tuple(sorted({one.concept for one in found}))
                results.append(Found(present, unions, self._centres(every, picture.shape[:2])))
        return results

    def _centres(self, detections: Sequence[Detection], size: tuple[int, ...]) -> dict[str, tuple[float, float]]:
        centres = {}
        for concept in dict.fromkeys(one.concept for one in detections):
            mine = [(one.box, one.score) for one in detections if one.concept == concept]
            centre = score_centre(mine, size[0], size[1])
            if centre is not None:
                centres[concept] = centre
        return centres

    def _first_step(self, window: tuple[float, float]) -> int:
        return self.schedule.first_step(window) if can_resume(self.pipe) else 0

    def _draw_bases(self, starts: Sequence[Start]) -> None:
        unet = self.pipe.unet
        latents = torch.cat([self.generator.noise(start.seed) for start in starts]).to(unet.device, unet.dtype)
        with keep_latents(self.pipe, set(self.first.values()), len(starts)) as kept:
            pictures = self._call(starts, latents)
        for i, (start, picture) in enumerate(zip(starts, pictures, strict=True)):
            # Step 0 starts from the noise itself, which the pipeline may scale before the U-Net sees it.
            own = {s: latents[i : i + 1] if step == 0 else kept[step][i : i + 1]
                   for s, step in self.first.items()}  # fmt: skip
            self._bases[start] = _Base(picture, own)

    @torch.inference_mode()
    def _call(self, starts: Sequence[Start], latents: Tensor) -> list[Picture]:
        config = self.generator.config
        size: dict[str, Any] = {n: v for n in ("height", "width") if (v := getattr(config, n))}
        with torch.autocast(latents.device.type, self.dtype, enabled=self.dtype == torch.bfloat16):
            made = self.pipe(
                prompt=[start.prompt for start in starts],
                latents=latents,
                num_inference_steps=config.steps,
                guidance_scale=config.guidance,
                output_type="np",
                **size,
            )
        return list(pictures_of(made))
