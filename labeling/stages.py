"""The stages of one shard, images -> boxes -> masks -> evidence, as plain code that any executor can run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from data.codes import codes_table
from data.errors import GazetteerError
from data.images import encode_image
from data.masks import mask_to_struct
from data.prompts import Item, split_of
from data.schemas import FAILURES, IMAGES, SEGMENTS
from data.sites import Site
from diffusion.generate import GenerationConfig, Generator, Picture
from diffusion.load import ModelConfig, load_pipeline
from labeling.detectors import Detection, DetectorConfig, load_detector
from labeling.evidence import EvidenceConfig, ImageEvidenceInput, build_evidence
from labeling.segmenters import Mask, SegmenterConfig, load_segmenter
from labeling.vocabulary import Vocabulary, VocabularyConfig

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class StageConfig:
    """Everything a worker needs to label a shard.

    Attributes:
        saes: a folder of sparse autoencoders, one sub-folder a site (`Site.slug`).
        heldout: share of prompts, by hash, whose pictures take no part in choosing labels.
        batch_size: pictures generated, detected and segmented together.
        threads: CPU threads per worker, 0 leaves torch's default.
    """

    model: ModelConfig
    generation: GenerationConfig
    saes: str
    vocabulary: VocabularyConfig
    detector: DetectorConfig
    segmenter: SegmenterConfig
    evidence: EvidenceConfig = EvidenceConfig()
    heldout: float = 0.3
    batch_size: int = 8
    threads: int = 1


@dataclass
class ShardResult:
    """The tables of one shard (schemas.PART_TABLES), seconds spent per stage, and plain counts."""

    tables: dict[str, pa.Table]
    seconds: dict[str, float]
    counts: dict[str, int]


@dataclass
class _Labelled:
    """One picture on its way through the stages."""

    item: Item
    picture: Picture
    asked: tuple[str, ...]
    detections: list[Detection] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)


class Stages:
    """All models of a run, loaded once in a worker, and the work on one shard."""

    def __init__(self, config: StageConfig) -> None:
        """Load every model.

        Raises:
            InputError: a model, block or sparse autoencoder that does not exist or does not fit.
        """
        import torch

        from diffusion.capture import width_of
        from sae.checkpoint import expect_width, load_site_saes

        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        pipe: Any = load_pipeline(config.model)
        self.generator = Generator(pipe, config.generation)
        self.saes = load_site_saes(config.saes, config.generation.sites, device=config.model.device)
        for site, sae in self.saes.items():
            expect_width(sae, width_of(pipe.unet, site.block), site)
        self.vocabulary = Vocabulary(config.vocabulary)
        self._load_finders()

    def _load_finders(self) -> None:
        """Load what finds things in pictures."""
        self.detector = load_detector(self.config.detector)
        self.segmenter = load_segmenter(self.config.segmenter)

    def run(self, items: Sequence[Item]) -> ShardResult:
        """Label the pictures of one shard; an item that fails becomes a row of `failures`, its neighbours stay.

        Raises:
            GazetteerError: what no retry of an item can mend, such as a device without memory.
        """
        clock = _Clock()
        failures: list[dict[str, Any]] = []
        done: list[_Labelled] = []
        for start in range(0, len(items), self.config.batch_size):
            chosen = items[start : start + self.config.batch_size]
            batch = self._each("generate", chosen, self._generate, clock, failures)
            batch = self._each("detect", batch, self._detect, clock, failures)
            done += self._each("segment", batch, self._segment, clock, failures)
        with clock.stage("evidence"):
            evidence = build_evidence(
                [self._evidence_input(one) for one in done], self.vocabulary.base, self.config.evidence
            )
        ids = [one.item.image_id for one in done]
        tables = {
            "images": pa.Table.from_pylist([self._image_row(one) for one in done], schema=IMAGES),
            "codes": codes_table(ids, [one.picture.codes for one in done], self.generator.moments),
            "segments": pa.Table.from_pylist([row for one in done for row in _segment_rows(one)], schema=SEGMENTS),
            "evidence": evidence,
            "failures": pa.Table.from_pylist(failures, schema=FAILURES),
        }
        counts = {"images": len(done), "segments": tables["segments"].num_rows, "failures": len(failures)}
        return ShardResult(tables, clock.seconds, counts)

    def feature_counts(self) -> dict[Site, int]:
        """Features per site, dead ones included."""
        return {site: sae.config.n for site, sae in self.saes.items()}

    def _generate(self, batch: Sequence[Item]) -> list[_Labelled]:
        pictures = self.generator.pictures([i.prompt for i in batch], [i.seed for i in batch], self.saes)
        asked = [self.vocabulary.asked(item.prompt) for item in batch]
        return [_Labelled(*one) for one in zip(batch, pictures, asked, strict=True)]

    def _detect(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        found = self.detector.detect([one.picture.image for one in batch], [one.asked for one in batch])
        for one, detections in zip(batch, found, strict=True):
            one.detections = detections
        return list(batch)

    def _segment(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        boxes = [[d.box for d in one.detections] for one in batch]
        for one, masks in zip(batch, self.segmenter.segment([o.picture.image for o in batch], boxes), strict=True):
            one.masks = masks
        return list(batch)

    def _each(
        self,
        stage: str,
        batch: Sequence[T],
        work: Callable[[Sequence[T]], list[R]],
        clock: _Clock,
        failures: list[dict[str, Any]],
    ) -> list[R]:
        """Run a stage on a batch; when it fails, on each item alone, so that only the bad ones drop out."""
        if not batch:
            return []
        with clock.stage(stage):
            try:
                return work(batch)
            except GazetteerError:
                raise
            except Exception:  # whatever a model library may throw at a bad item
                results: list[R] = []
                for one in batch:
                    try:
                        results += work([one])
                    except GazetteerError:
                        raise
                    except Exception as error:
                        failures.append(_failure(stage, _id_of(one), error, attempts=min(2, len(batch))))
                return results

    def _image_row(self, one: _Labelled) -> dict[str, Any]:
        height, width = one.picture.image.shape[:2]
        return {
            "image_id": one.item.image_id,
            "prompt": one.item.prompt,
            "seed": one.item.seed,
            "split": split_of(one.item.prompt, self.config.heldout),
            "image": {"bytes": encode_image(one.picture.image), "path": f"{one.item.image_id}.png"},
            "width": width,
            "height": height,
            "asked": list(one.asked),
        }

    def _evidence_input(self, one: _Labelled) -> ImageEvidenceInput:
        return ImageEvidenceInput(
            image_id=one.item.image_id,
            split=split_of(one.item.prompt, self.config.heldout),
            size=one.picture.image.shape[:2],
            asked=one.asked,
            segments=[(d.concept, m.mask) for d, m in _pairs(one)],
            codes=one.picture.codes,
        )


class _Clock:
    """Adds up wall seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _id_of(one: Any) -> str:
    """The picture's id, of an item or of a picture on its way."""
    item = one.item if isinstance(one, _Labelled) else one
    return str(item.image_id)


def _pairs(one: _Labelled) -> list[tuple[Detection, Mask]]:
    """Detections with a mask; a box in which the segmenter found nothing is no segment."""
    return [(d, m) for d, m in zip(one.detections, one.masks, strict=True) if m.mask.any()]


def _segment_rows(one: _Labelled) -> list[dict[str, Any]]:
    return [
        {
            "image_id": one.item.image_id,
            "concept": detection.concept,
            "score": detection.score,
            "box": list(detection.box),
            "area": int(np.count_nonzero(mask.mask)),
            "predicted_iou": mask.predicted_iou,
            "mask": mask_to_struct(mask.mask),
        }
        for detection, mask in _pairs(one)
    ]


def _failure(stage: str, item: str, error: Exception, attempts: int) -> dict[str, Any]:
    message = (str(error).strip().splitlines() or [""])[0]
    return {"stage": stage, "item": item, "error": type(error).__name__, "message": message, "attempts": attempts}
