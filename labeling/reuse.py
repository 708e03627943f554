"""Label pictures that an earlier run has made: its images and segments are taken over, only the codes are made again.

An autoencoder has no part in a picture, so another set of them changes codes, evidence and labels and nothing else.
The activations come from a replay: the same prompts and seeds are sampled again without decoding, detecting or
segmenting. The tables are the ones that a run from nothing would write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.images import decode_image
from data.masks import struct_to_mask
from data.prompts import Item
from data.store import RunFolder
from diffusion.generate import Picture
from labeling.detectors import Detection, load_detector
from labeling.segmenters import Mask, load_segmenter
from labeling.stages import STAGES, ShardResult, StageConfig, Stages, Unfinished, _Labelled

SHAPING = (
    "model.", "generation.steps", "generation.guidance", "generation.height", "generation.width", "generation.exact",
    "vocabulary.", "detector.", "segmenter.", "heldout",
)  # fmt: skip
"""Keys of a run's fingerprint, or their beginnings, that decide what its images and segments are."""


def differing_pictures(mine: Mapping[str, Any], theirs: Any) -> list[str]:
    """The keys by which two runs' fingerprints differ where images and segments are concerned, sorted."""
    theirs = theirs if isinstance(theirs, dict) else {}
    keys = {key for key in mine.keys() | theirs.keys() if key.startswith(SHAPING)}
    return sorted(key for key in keys if (key in mine, mine.get(key)) != (key in theirs, theirs.get(key)))


class ReusingStages(Stages):
    """Stages that take over the pictures of the run `base`; the others are generated, detected and segmented.

    The detector and the segmenter are loaded when the first picture needs them. Results count as ``replayed`` the
    pictures that were taken over.
    """

    def __init__(self, config: StageConfig, base: str, stages: Sequence[str] = STAGES) -> None:
        """Load the models that codes need; raises InputError as `Stages` does, and for a base that is damaged."""
        super().__init__(config, stages)
        self.base = RunFolder(base)
        self._shard = {
            image_id: shard
            for shard in self.base.shard_ids()
            for image_id in self.base.read_table("images", [shard], ["image_id"])["image_id"].to_pylist()
        }

    def run(self, given: Sequence[Item] | Unfinished) -> ShardResult | Unfinished:
        """Carry a shard through this worker's stages, as `Stages.run` does."""
        result = super().run(given)
        if isinstance(result, ShardResult):
            made = result.tables["images"]["image_id"].to_pylist()
            result.counts["replayed"] = sum(image_id in self._shard for image_id in made)
        return result

    def _load_finders(self) -> None:
        """Nothing yet: a swap of autoencoders alone finds nothing new."""

    def _generate(self, batch: Sequence[Item]) -> list[_Labelled]:
        known = [item for item in batch if item.image_id in self._shard]
        new = [item for item in batch if item.image_id not in self._shard]
        done = (self._replay(known) if known else []) + (super()._generate(new) if new else [])
        place = {item.image_id: number for number, item in enumerate(batch)}
        return sorted(done, key=lambda one: place[one.item.image_id])

    def _replay(self, batch: Sequence[Item]) -> list[_Labelled]:
        watch = self._check.watch if self._check.open else None
        codes = self.generator.codes([i.prompt for i in batch], [i.seed for i in batch], self.saes, watch)
        images, segments = self._rows("images", batch), self._rows("segments", batch)
        done = []
        for item, code in zip(batch, codes, strict=True):
            (row,) = images[item.image_id]
            found = segments[item.image_id]
            picture = Picture(decode_image(row["image"]["bytes"]), code)
            detections = [Detection(s["concept"], s["score"], tuple(s["box"])) for s in found]
            masks = [Mask(struct_to_mask(s["mask"]), s["predicted_iou"]) for s in found]
            done.append(_Labelled(item, picture, tuple(row["asked"]), detections, masks))
        return done

    def _rows(self, table: str, batch: Sequence[Item]) -> dict[str, list[dict[str, Any]]]:
        """The base's rows of each picture, in their order."""
        wanted: dict[str, list[dict[str, Any]]] = {item.image_id: [] for item in batch}
        shards = sorted({self._shard[image_id] for image_id in wanted})
        for row in self.base.read_table(table, shards).to_pylist():
            if row["image_id"] in wanted:
                wanted[row["image_id"]].append(row)
        return wanted

    def _tag(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        super()._tag(self._new(batch))
        return list(batch)

    def _detect(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        if new := self._new(batch):
            if not hasattr(self, "detector"):
                self.detector = load_detector(self.config.detector)
            super()._detect(new)
        return list(batch)

    def _segment(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        if new := self._new(batch):
            if not hasattr(self, "segmenter"):
                self.segmenter = load_segmenter(self.config.segmenter)
            super()._segment(new)
        return list(batch)

    def _new(self, batch: Sequence[_Labelled]) -> list[_Labelled]:
        """The pictures that the base does not have."""
        return [one for one in batch if one.item.image_id not in self._shard]
