"""Label pictures that an earlier run has made: its images and segments are taken over, only the codes are made again.

An autoencoder has no part in a picture, so another set of them changes codes, evidence and labels and nothing else.
The activations come from a replay: the same prompts and seeds are sampled again without decoding, detecting or
segmenting. The tables are the ones that a run from nothing would write.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompts import Item
from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.diffusion.generate import Picture
from gazetteer.labeling.detect.protocol import Detection
from gazetteer.labeling.pipeline.shard import LabelledPicture
from gazetteer.labeling.segment.protocol import Mask

log = logging.getLogger(__name__)


class BasePictures:
    """The pictures of a run with what was found in them; what is damaged there, a part or a picture, is left out."""

    def __init__(self, run: str) -> None:
        self.base = RunFolder(run)
        self._shard: dict[str, str] = {}
        for shard in self.base.shard_ids():
            try:
                ids = self.base.read_table("images", [shard], ["image_id"])["image_id"].to_pylist()
            except InputError as error:
                log.warning("The pictures of shard %s of %s are made again: %s", shard, run, error)
            else:
                self._shard |= dict.fromkeys(ids, shard)

    def take(self, batch: Sequence[Item]) -> dict[str, LabelledPicture]:
        """What the base has of these pictures, still without codes, by image id; damaged ones are forgotten."""
        reused: dict[str, LabelledPicture] = {}
        known = [item for item in batch if item.image_id in self._shard]
        for shard in sorted({self._shard[item.image_id] for item in known}):
            items = [item for item in known if self._shard[item.image_id] == shard]
            wanted = pc.field("image_id").isin([item.image_id for item in items])
            try:
                images, segments = (
                    self.base.read_table(name, [shard]).filter(wanted).to_pylist() for name in ("images", "segments")
                )
            except InputError as error:
                log.warning("The pictures of shard %s of %s are made again: %s", shard, self.base.path, error)
                images, segments = [], []
            reused |= self._whole(items, {row["image_id"]: row for row in images}, segments)
        for item in known:
            if item.image_id not in reused:
                del self._shard[item.image_id]
        return reused

    def _whole(
        self, items: Sequence[Item], images: Mapping[str, dict[str, Any]], segments: Sequence[dict[str, Any]]
    ) -> dict[str, LabelledPicture]:
        """Those of the pictures whose rows hold what they must."""
        whole: dict[str, LabelledPicture] = {}
        for item in [item for item in items if item.image_id in images]:
            row, own = images[item.image_id], [s for s in segments if s["image_id"] == item.image_id]
            try:
                picture = Picture(decode_image(row["image"]["bytes"]), tokens_cut=row["tokens_cut"])
                masks = [Mask(struct_to_mask(s["mask"]), s["predicted_iou"]) for s in own]
            except InputError as error:
                log.warning("The picture %s of %s is made again: %s", item.image_id, self.base.path, error)
                continue
            detections = [Detection(s["concept"], s["score"], tuple(s["box"])) for s in own]
            whole[item.image_id] = LabelledPicture(item, picture, tuple(row["asked"]), detections, masks, True)
        return whole
