"""Label pictures that an earlier run has made: its images and segments are taken over, only the codes are made again.

An autoencoder has no part in a picture, so another set of them changes codes, evidence and labels and nothing else.
The activations come from a replay: the same prompts and seeds are sampled again without decoding, detecting or
segmenting. The tables are the ones that a run from nothing would write.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompts import Item
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.diffusion.generate import Picture
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import Detection
from gazetteer.labeling.pipeline.stages import STAGES, ShardResult, StageConfig, Stages, Unfinished, _Labelled
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import Mask

log = logging.getLogger(__name__)


@dataclass
class _TakenOver(_Labelled):
    """A picture of the base, with the segments it has there."""


class ReusingStages(Stages):
    """Stages that take over the pictures of the run `base`; the others are generated, detected and segmented.

    The detector and the segmenter are loaded when the first picture needs them. Results count as ``replayed`` the
    pictures that were taken over. What is damaged in the base, a part or a picture, is not taken over but made again.
    """

    def __init__(self, config: StageConfig, base: str, stages: Sequence[str] = STAGES) -> None:
        """Load the models that codes need; raises InputError as `Stages` does."""
        super().__init__(config, stages)
        self.base = RunFolder(base)
        self._shard: dict[str, str] = {}
        self._replayed = 0
        for shard in self.base.shard_ids() if "generate" in self.stages else ():
            try:
                ids = self.base.read_table("images", [shard], ["image_id"])["image_id"].to_pylist()
            except InputError as error:
                log.warning("The pictures of shard %s of %s are made again: %s", shard, base, error)
            else:
                self._shard |= dict.fromkeys(ids, shard)

    def run(self, given: Sequence[Item] | Unfinished) -> ShardResult | Unfinished:
        """Carry a shard through this worker's stages, as `Stages.run` does."""
        result = super().run(given)
        if isinstance(result, ShardResult):
            result.counts["replayed"] = self._replayed
        return result

    def _tables(self, done: list[_Labelled], *rest: Any) -> dict[str, pa.Table]:
        self._replayed = sum(isinstance(one, _TakenOver) for one in done)
        return super()._tables(done, *rest)

    def _load_finders(self) -> None:
        """Nothing yet: a swap of autoencoders alone finds nothing new."""

    def _generate(self, batch: Sequence[Item]) -> list[_Labelled]:
        kept = self._kept([item for item in batch if item.image_id in self._shard])
        new = [item for item in batch if item.image_id not in kept]
        done = (self._replay(kept) if kept else []) + (super()._generate(new) if new else [])
        place = {item.image_id: number for number, item in enumerate(batch)}
        return sorted(done, key=lambda one: place[one.item.image_id])

    def _replay(self, kept: Mapping[str, _TakenOver]) -> list[_Labelled]:
        """The same with the codes of these autoencoders."""
        watch = self._check.watch if self._check.open else None
        items = [one.item for one in kept.values()]
        codes = self.generator.codes([i.prompt for i in items], [i.seed for i in items], self.saes, watch)
        for one, code in zip(kept.values(), codes, strict=True):
            one.picture = replace(one.picture, codes=code)
        return list(kept.values())

    def _kept(self, batch: Sequence[Item]) -> dict[str, _TakenOver]:
        """What the base has of these pictures, still without codes, by image id; damaged ones are forgotten."""
        kept: dict[str, _TakenOver] = {}
        for shard in sorted({self._shard[item.image_id] for item in batch}):
            items = [item for item in batch if self._shard[item.image_id] == shard]
            wanted = pc.field("image_id").isin([item.image_id for item in items])
            try:
                images, segments = (
                    self.base.read_table(name, [shard]).filter(wanted).to_pylist() for name in ("images", "segments")
                )
            except InputError as error:
                log.warning("The pictures of shard %s of %s are made again: %s", shard, self.base.path, error)
                images, segments = [], []
            kept |= self._whole(items, {row["image_id"]: row for row in images}, segments)
        for item in batch:
            if item.image_id not in kept:
                del self._shard[item.image_id]
        return kept

    def _whole(
        self, items: Sequence[Item], images: Mapping[str, dict[str, Any]], segments: Sequence[dict[str, Any]]
    ) -> dict[str, _TakenOver]:
        """Those of the pictures whose rows hold what they must."""
        whole: dict[str, _TakenOver] = {}
        for item in [item for item in items if item.image_id in images]:
            row, found = images[item.image_id], [s for s in segments if s["image_id"] == item.image_id]
            try:
                picture = Picture(decode_image(row["image"]["bytes"]), tokens_cut=row["tokens_cut"])
                masks = [Mask(struct_to_mask(s["mask"]), s["predicted_iou"]) for s in found]
            except InputError as error:
                log.warning("The picture %s of %s is made again: %s", item.image_id, self.base.path, error)
                continue
            detections = [Detection(s["concept"], s["score"], tuple(s["box"])) for s in found]
            whole[item.image_id] = _TakenOver(item, picture, tuple(row["asked"]), detections, masks)
        return whole

    def _tag(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        super()._tag(self._new(batch))
        return list(batch)

    def _detect(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        if new := self._new(batch):
            if not hasattr(self, "detector"):
                self._use_detector(load_detector(self.config.detector))
            super()._detect(new)
        return list(batch)

    def _segment(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        if new := self._new(batch):
            if not hasattr(self, "segmenter"):
                self.segmenter = load_segmenter(self.config.segmenter)
            super()._segment(new)
        return list(batch)

    def _new(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        """The pictures that were not taken over."""
        return [one for one in batch if not isinstance(one, _TakenOver)]
