"""The stages of one shard, images -> boxes -> masks -> evidence, as plain code that any executor can run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from gazetteer.data.core.errors import GazetteerError
from gazetteer.data.core.heap import freed_memory_kept
from gazetteer.data.core.sites import Site
from gazetteer.data.core.threads import use_threads
from gazetteer.data.inputs.given.contents import recorded
from gazetteer.data.inputs.given.open import open_given
from gazetteer.data.inputs.prompts import Item
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import Moment, codes_table
from gazetteer.data.tables.schemas import FAILURES, IMAGES, SEGMENTS
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.diffusion.runtime.beside import use_helpers
from gazetteer.labeling.detect.askable import Askable
from gazetteer.labeling.detect.captions import detect_in_captions
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detector
from gazetteer.labeling.evidence.counts import build_evidence
from gazetteer.labeling.evidence.prompt_words import prompt_words
from gazetteer.labeling.pipeline.config import STAGES, StageConfig
from gazetteer.labeling.pipeline.finished import Closing, FinishedPicture, finished, put_away
from gazetteer.labeling.pipeline.given import given_pictures
from gazetteer.labeling.pipeline.notes import overheard
from gazetteer.labeling.pipeline.reuse import BasePictures
from gazetteer.labeling.pipeline.sae_check import SaeCheck
from gazetteer.labeling.pipeline.shard import (
    LabelledPicture,
    ShardResult,
    Unfinished,
    drawn,
    failure_row,
    id_of,
)
from gazetteer.labeling.segment.finder import cut_out
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Segmenter
from gazetteer.labeling.vocabulary.concepts import Vocabulary

T = TypeVar("T")
R = TypeVar("R")


class Stages:
    """The models of some consecutive stages of a run, loaded once in a worker, and the work on one shard."""

    def __init__(self, config: StageConfig, stages: Sequence[str] = STAGES, reuse: str = "", run: str = "") -> None:
        """Load the models that `stages` need.

        Args:
            reuse: a run whose pictures, and what was found in them, are taken over (`labeling.pipeline.reuse`);
                the detector and the segmenter are then loaded when the first other picture needs them.
            run: the run itself, which knows the contents of given pictures (`gazetteer.data.inputs.given.contents`).

        Raises:
            InputError: a model, block or sparse autoencoder that does not exist or does not fit.
        """
        self.config, self.stages, self.reuse = config, tuple(stages), reuse
        self.detector: Detector | None = None
        self.segmenter: Segmenter | None = None
        self.vocabulary = Vocabulary(config.vocabulary)
        self.given = open_given(config.pictures, config.seed) if config.pictures.kind else None
        self.contents = recorded(RunFolder(run)) if run and self.given is not None else {}
        use_helpers(config.helpers)
        if self.stages == ("evidence",):
            return

        use_threads(config.threads)
        if "generate" in self.stages:
            self._load_generator()
            self.base = BasePictures(reuse) if reuse else None
        if not reuse and self.given is None:
            self._load_finders()

    def _load_generator(self) -> None:
        from gazetteer.diffusion.capture import width_of
        from gazetteer.sae.model.checkpoint import expect_width, load_site_saes
        from gazetteer.sae.model.sources import places

        pipe: Any = load_pipeline(self.config.model)
        self.generator = Generator(pipe, self.config.generation)
        sites = self.config.generation.sites
        self.saes = load_site_saes(
            self.config.saes, sites, self.config.model.device, signal=self.config.sae_check.signal
        )
        moments = self.generator.moments
        self.saes = {site: sae.at(moments[site].timestep) for site, sae in self.saes.items()}
        where = places(self.config.saes, sites)
        for site, sae in self.saes.items():
            expect_width(sae, width_of(pipe, site.block), site, where[site])
        self._check = SaeCheck(self.saes, self.config.sae_check)

    def _load_finders(self) -> None:
        """Load what finds things in pictures, where it is not there yet."""
        if "detect" in self.stages and self.detector is None:
            self._use_detector(load_detector(self.config.detector))
        if "segment" in self.stages and self.segmenter is None:
            self.segmenter = load_segmenter(self.config.segmenter)

    def _use_detector(self, detector: Detector) -> None:
        """Find with `detector`; raises InputError where it cannot tell the listed concepts apart."""
        self.detector, self._askable = detector, Askable(detector, self.vocabulary.concepts)

    def run(self, given: Sequence[Item] | Unfinished) -> ShardResult | Unfinished:
        """Carry a shard through this worker's stages; an item that fails becomes a row of `failures`, others stay.

        Args:
            given: the shard's items, or what the worker of the stages before made of them.

        Returns:
            the shard's tables when "evidence" is among the stages, else what the next worker needs; what was warned of
            meanwhile is among its notes.

        Raises:
            GazetteerError: what no retry of an item can mend, such as a device without memory.
            InputError: an autoencoder does not fit its block (`gazetteer.labeling.pipeline.sae_check`).
        """
        # On a CPU, between arrays that hooks hold, those of the models would be mapped anew again and again.
        with overheard() as notes, freed_memory_kept():
            result = self._carried(given)
        before = given.notes if isinstance(given, Unfinished) else ()
        return replace(result, notes=(*before, *notes))

    def _carried(self, given: Sequence[Item] | Unfinished) -> ShardResult | Unfinished:
        if isinstance(given, Unfinished):
            todo: Sequence[Any] = given.pictures
            # Copies: what a worker is given may be given to another one too.
            failures, clock, moments = list(given.failures), _Clock(dict(given.seconds)), given.moments
            explained = given.explained
        else:
            todo, failures, clock, moments, explained = given, [], _Clock({}), self.generator.moments, {}
        whole = "evidence" in self.stages
        # Beside the models, which go on with the next batch.
        closing: Closing[Any] = Closing(partial(finished, heldout=self.config.heldout) if whole else put_away)
        for start in range(0, len(todo), self.config.batch_size):
            # Copies: what is added to these pictures must not stay with those given.
            batch: Sequence[Any] = [copy(given_one) for given_one in todo[start : start + self.config.batch_size]]
            for stage in self.stages:
                if stage == "detect":
                    batch = self._each("tag", batch, self._tag, clock, failures)
                if stage == "segment":  # before there are new masks, those of the batch before must be gone
                    with clock.stage("evidence"):
                        closing.done()
                if stage != "evidence":
                    batch = self._each(stage, batch, getattr(self, f"_{stage}"), clock, failures)
                if stage == "generate":
                    batch = drawn(batch, failures)
                    explained = self._check.verdict(len(batch)) or explained
            with clock.stage("evidence"):
                closing.take(batch)
        with clock.stage("evidence"):
            through = closing.done()
        if not whole:
            return Unfinished(through, failures, clock.seconds, moments, explained)
        with clock.stage("evidence"):
            tables = self._tables(through, failures, moments)
        counts = {"images": len(through), "segments": tables["segments"].num_rows, "failures": len(failures)}
        counts["features_cut"] = sum(code.cut for picture in through for code in picture.evidence.codes.values())
        if self.reuse:
            counts["replayed"] = sum(picture.replayed for picture in through)
        return ShardResult(tables, clock.seconds, counts, explained)

    def _tables(
        self, done: Sequence[FinishedPicture], failures: list[dict[str, Any]], moments: dict[Site, Moment]
    ) -> dict[str, pa.Table]:
        inputs = [picture.evidence for picture in done]
        # Stages done apart find failures in another order than stages done together.
        failed = sorted(failures, key=lambda row: row["item"])
        base = self.vocabulary.base if self.given is None else self.given.base
        return {
            "images": pa.Table.from_pylist([picture.image for picture in done], schema=IMAGES),
            "codes": codes_table([own.image_id for own in inputs], [own.codes for own in inputs], moments),
            "segments": pa.Table.from_pylist([row for picture in done for row in picture.segments], schema=SEGMENTS),
            "evidence": build_evidence(inputs, base, self.config.evidence),
            "failures": pa.Table.from_pylist(failed, schema=FAILURES),
        }

    def _generate(self, batch: Sequence[Item]) -> list[LabelledPicture]:
        """Make the pictures, and the codes of those that the base run has; given ones are read."""
        with self._check.heeding():
            return self._sampled(batch)

    def _sampled(self, batch: Sequence[Item]) -> list[LabelledPicture]:
        if self.given is not None:
            return given_pictures(self.given, batch, self.generator, self.saes, self._check, self.contents)
        done = {} if self.base is None else self.base.take(batch)
        watch = self._check.watch if self._check.open else None
        replayable = [done[item.image_id].item for item in batch if item.image_id in done]
        if replayable:
            replayed = self.generator.codes(
                [i.prompt for i in replayable], [i.seed for i in replayable], self.saes, watch
            )
            for item, codes in zip(replayable, replayed, strict=True):
                tokens = self.generator.tokens(item.prompt)
                done[item.image_id].picture = replace(done[item.image_id].picture, codes=codes, tokens=tokens)
        new = [item for item in batch if item.image_id not in done]
        if new:
            pictures = self.generator.pictures([i.prompt for i in new], [i.seed for i in new], self.saes, watch)
            done |= {i.image_id: LabelledPicture(i, picture) for i, picture in zip(new, pictures, strict=True)}
        for labelled in done.values():
            if labelled.picture.tokens is not None:
                labelled.words = prompt_words(self.vocabulary.words(labelled.item.prompt), labelled.picture.tokens)
        return [done[item.image_id] for item in batch]

    def _tag(self, batch: Sequence[LabelledPicture]) -> list[LabelledPicture]:
        for labelled in _made(batch):
            labelled.asked = self.vocabulary.asked(labelled.item.prompt, labelled.picture.image)
        return list(batch)

    def _detect(self, batch: Sequence[LabelledPicture]) -> list[LabelledPicture]:
        if made := _made(batch):
            self._load_finders()
            assert self.detector is not None
            for labelled in made:
                labelled.asked = self._askable.among(labelled.asked)
            captions = [self.vocabulary.captions(labelled.asked) for labelled in made]
            detections_of = detect_in_captions(self.detector, [labelled.picture.image for labelled in made], captions)
            for labelled, detections in zip(made, detections_of, strict=True):
                labelled.detections = detections
        return list(batch)

    def _segment(self, batch: Sequence[LabelledPicture]) -> list[LabelledPicture]:
        if made := _made(batch):
            self._load_finders()
            detections_of = [labelled.detections for labelled in made]
            for labelled, masks in zip(
                made, cut_out(self.segmenter, [o.picture.image for o in made], detections_of), strict=True
            ):
                labelled.masks = masks
                # A mask of the detector's own is held once.
                labelled.detections = [replace(detection, mask=None) for detection in labelled.detections]
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
                for labelled in batch:
                    try:
                        results += work([labelled])
                    except GazetteerError:
                        raise
                    except Exception as error:
                        failures.append(failure_row(stage, id_of(labelled), error, attempts=min(2, len(batch))))
                return results


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


def _made(batch: Sequence[LabelledPicture]) -> list[LabelledPicture]:
    """The pictures that came without what is found in them."""
    return [labelled for labelled in batch if not (labelled.replayed or labelled.given)]
