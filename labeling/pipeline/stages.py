"""The stages of one shard, images -> boxes -> masks -> evidence, as plain code that any executor can run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.prompts import Item, split_of
from gazetteer.data.tables.codes import Moment, codes_table
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import FAILURES, IMAGES, SEGMENTS
from gazetteer.diffusion.generate import GenerationConfig, Generator, Picture
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.labeling.detect.askable import Askable
from gazetteer.labeling.detect.captions import detect_in_captions
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detection, Detector, DetectorConfig
from gazetteer.labeling.evidence.counts import EvidenceConfig, ImageEvidenceInput, build_evidence
from gazetteer.labeling.pipeline.sae_check import SaeCheck, SaeCheckConfig
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Mask, SegmenterConfig
from gazetteer.labeling.vocabulary.concepts import Vocabulary, VocabularyConfig

T = TypeVar("T")
R = TypeVar("R")


STAGES = ("generate", "detect", "segment", "evidence")
"""What a worker does with a shard, in order; one worker may do all of it, or several some of it each."""


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
    sae_check: SaeCheckConfig = SaeCheckConfig()
    heldout: float = 0.3
    batch_size: int = 8
    threads: int = 1


@dataclass
class ShardResult:
    """The tables of one shard (schemas.PART_TABLES), seconds spent per stage, and plain counts.

    explained: the variance that the autoencoders explain, per site, with the first shard of a worker; else empty.
    """

    tables: dict[str, pa.Table]
    seconds: dict[str, float]
    counts: dict[str, int]
    explained: dict[str, float] = field(default_factory=dict)


@dataclass
class _Labelled:
    """One picture on its way through the stages."""

    item: Item
    picture: Picture
    asked: tuple[str, ...] = ()
    detections: list[Detection] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)


@dataclass
class Unfinished:
    """A shard between stages that different workers do.

    Attributes:
        pictures: those that came through so far.
        failures: rows of those that did not.
        seconds: per stage so far.
        moments: when each site is captured, for the codes table.
        explained: as in `ShardResult`.
    """

    pictures: list[_Labelled]
    failures: list[dict[str, Any]]
    seconds: dict[str, float]
    moments: dict[Site, Moment]
    explained: dict[str, float]


class Stages:
    """The models of some consecutive stages of a run, loaded once in a worker, and the work on one shard."""

    def __init__(self, config: StageConfig, stages: Sequence[str] = STAGES) -> None:
        """Load the models that `stages` need.

        Raises:
            InputError: a model, block or sparse autoencoder that does not exist or does not fit.
        """
        self.config, self.stages = config, tuple(stages)
        self.vocabulary = Vocabulary(config.vocabulary)
        if self.stages == ("evidence",):
            return

        use_threads(config.threads)
        if "generate" in self.stages:
            self._load_generator()
        self._load_finders()

    def _load_generator(self) -> None:
        from gazetteer.diffusion.capture import width_of
        from gazetteer.sae.model.checkpoint import expect_width, load_site_saes

        pipe: Any = load_pipeline(self.config.model)
        self.generator = Generator(pipe, self.config.generation)
        sites = self.config.generation.sites
        self.saes = load_site_saes(
            self.config.saes, sites, self.config.model.device, signal=self.config.sae_check.signal
        )
        for site, sae in self.saes.items():
            expect_width(sae, width_of(pipe.unet, site.block), site)
        self._check = SaeCheck(self.saes, self.config.sae_check)

    def _load_finders(self) -> None:
        """Load what finds things in pictures."""
        if "detect" in self.stages:
            self._use_detector(load_detector(self.config.detector))
        if "segment" in self.stages:
            self.segmenter = load_segmenter(self.config.segmenter)

    def _use_detector(self, detector: Detector) -> None:
        """Find with `detector`; raises InputError where it cannot tell the listed concepts apart."""
        self.detector, self._askable = detector, Askable(detector, self.vocabulary.concepts)

    def run(self, given: Sequence[Item] | Unfinished) -> ShardResult | Unfinished:
        """Carry a shard through this worker's stages; an item that fails becomes a row of `failures`, others stay.

        Args:
            given: the shard's items, or what the worker of the stages before made of them.

        Returns:
            the shard's tables when "evidence" is among the stages, else what the next worker needs.

        Raises:
            GazetteerError: what no retry of an item can mend, such as a device without memory.
            InputError: an autoencoder does not fit its block (`gazetteer.labeling.pipeline.sae_check`).
        """
        if isinstance(given, Unfinished):
            todo: Sequence[Any] = given.pictures
            # Copies: what a worker is given may be given to another one too.
            failures, clock, moments = list(given.failures), _Clock(dict(given.seconds)), given.moments
            explained = given.explained
        else:
            todo, failures, clock, moments, explained = given, [], _Clock({}), self.generator.moments, {}
        done: list[_Labelled] = []
        for start in range(0, len(todo), self.config.batch_size):
            batch: Sequence[Any] = todo[start : start + self.config.batch_size]
            for stage in self.stages:
                if stage == "detect":
                    batch = self._each("tag", batch, self._tag, clock, failures)
                if stage != "evidence":
                    batch = self._each(stage, batch, getattr(self, f"_{stage}"), clock, failures)
                if stage == "generate":
                    batch = _drawn(batch, failures)
                    if self._check.open and batch:
                        explained = self._check.close()
            done += batch
        if "evidence" not in self.stages:
            return Unfinished(done, failures, clock.seconds, moments, explained)
        with clock.stage("evidence"):
            tables = self._tables(done, failures, moments)
        counts = {"images": len(done), "segments": tables["segments"].num_rows, "failures": len(failures)}
        return ShardResult(tables, clock.seconds, counts, explained)

    def _tables(
        self, done: list[_Labelled], failures: list[dict[str, Any]], moments: dict[Site, Moment]
    ) -> dict[str, pa.Table]:
        inputs = [self._evidence_input(one) for one in done]
        # Stages done apart find failures in another order than stages done together.
        rows = sorted(failures, key=lambda row: row["item"])
        codes = codes_table([one.item.image_id for one in done], [one.picture.codes for one in done], moments)
        return {
            "images": pa.Table.from_pylist([self._image_row(one) for one in done], schema=IMAGES),
            "codes": codes,
            "segments": pa.Table.from_pylist([row for one in done for row in _segment_rows(one)], schema=SEGMENTS),
            "evidence": build_evidence(inputs, self.vocabulary.base, self.config.evidence),
            "failures": pa.Table.from_pylist(rows, schema=FAILURES),
        }

    def _generate(self, batch: Sequence[Item]) -> list[_Labelled]:
        watch = self._check.watch if self._check.open else None
        pictures = self.generator.pictures([i.prompt for i in batch], [i.seed for i in batch], self.saes, watch)
        return [_Labelled(item, picture) for item, picture in zip(batch, pictures, strict=True)]

    def _tag(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        for one in batch:
            one.asked = self.vocabulary.asked(one.item.prompt, one.picture.image)
        return list(batch)

    def _detect(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        for one in batch:
            one.asked = self._askable.among(one.asked)
        captions = [self.vocabulary.captions(one.asked) for one in batch]
        found = detect_in_captions(self.detector, [one.picture.image for one in batch], captions)
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
            "tokens_cut": one.picture.tokens_cut,
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

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _drawn(batch: Sequence[_Labelled], failures: list[dict[str, Any]]) -> list[_Labelled]:
    """Those pictures that show what the model drew; those that its safety checker blacked out become failures."""
    failures += [
        {
            "stage": "generate", "item": one.item.image_id, "error": "BlackedOut", "attempts": 1,
            "message": "the model's safety checker blacked it out; model.safety_checker=false leaves that out",
        }
        for one in batch
        if one.picture.blacked_out
    ]  # fmt: skip
    return [one for one in batch if not one.picture.blacked_out]


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
    spoken = str(error).strip() or ("out of memory" if isinstance(error, MemoryError) else "it gave no reason")
    message = spoken.splitlines()[0]
    return {"stage": stage, "item": item, "error": type(error).__name__, "message": message, "attempts": attempts}
