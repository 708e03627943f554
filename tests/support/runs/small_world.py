"""Runs made by hand: pictures, codes and segments as tables, for the tests of the labelling stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import Moment, SparseMap, codes_table
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import CODES, IMAGES, SEGMENTS
from gazetteer.data.tables.words import rows_of_words
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.labeling.evidence.site_codes import codes_by_site
from gazetteer.labeling.rules.reduce import reduce_tables

MID = Site("mid", "cond", 0.5)


@dataclass
class World:
    """Inputs of a run and the tables made of them."""

    inputs: list[ImageEvidenceInput] = field(default_factory=list)
    base: tuple[str, ...] = ()

    @property
    def images(self) -> pa.Table:
        rows = [
            {
                "image_id": one.image_id, "prompt": f"prompt {one.image_id}", "seed": 0, "split": one.split,
                "image": None, "height": one.size[0], "width": one.size[1], "asked": list(one.asked),
                "words": rows_of_words(one.words) if one.words else None,
            }
            for one in self.inputs
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=IMAGES)

    @property
    def codes(self) -> pa.Table:
        moments = {site: Moment(0, 0) for one in self.inputs for site in one.codes}
        tables = [codes_table([one.image_id], [one.codes], moments) for one in self.inputs]
        return pa.concat_tables(tables) if tables else CODES.empty_table()

    @property
    def segments(self) -> pa.Table:
        rows = [
            {
                "image_id": one.image_id, "concept": concept, "score": 1.0, "box": [0.0] * 4,
                "area": int(mask.sum()), "predicted_iou": 1.0, "mask": mask_to_struct(mask),
            }
            for one in self.inputs
            for concept, mask in one.segments
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=SEGMENTS)

    @property
    def evidence(self) -> pa.Table:
        return build_evidence(self.inputs, self.base)

    def reduce(self, feature_counts: dict[Site, int], **settings: Any) -> dict[str, pa.Table]:
        return reduced(self.images, self.codes, self.segments, self.evidence, feature_counts, **settings)


def reduced(
    images: pa.Table, codes: pa.Table, segments: pa.Table, evidence: pa.Table, feature_counts: dict[Site, int],
    **settings: Any,
) -> dict[str, pa.Table]:  # fmt: skip
    """The final tables of whole tables in memory."""
    flat = codes_by_site(codes)
    grids = {(one.height, one.width) for one in flat.values()}
    return reduce_tables(images, flat.items(), grids, segments, evidence, feature_counts, "toy", **settings)


def map_code(maps: dict[int, np.ndarray]) -> SparseMap:
    """A code from dense maps {feature: float [h, w]}, one slot a cell and feature."""
    (h, w), k = next(iter(maps.values())).shape, len(maps)
    feature = np.tile(np.array(list(maps), np.uint32), h * w)
    value = np.stack([np.asarray(m).ravel() for m in maps.values()], axis=1).ravel().astype(np.float16)
    return SparseMap(h, w, k, feature, value)


FOLLOWS, MERELY_TOP, EVERYWHERE, CORNER = 0, 1, 2, 3


def sky_world(images: int = 120, seed: int = 0, size: int = 32) -> World:
    """Sky at the top of a random half of the pictures, at random heights; four features on an 8x8 grid.

    FOLLOWS fires exactly in the sky; MERELY_TOP at the top of a random half of the pictures, whether there is
    sky or not; EVERYWHERE in random cells; CORNER in one cell of three pictures.
    """
    rng = np.random.default_rng(seed)
    inputs = []
    for number in range(images):
        sky, ball = np.zeros((size, size), bool), np.zeros((size, size), bool)
        maps = {f: np.zeros((8, 8)) for f in range(4)}
        segments = []
        if rng.random() < 0.5:
            height = int(rng.integers(2, 5))
            sky[: height * size // 8] = True
            segments.append(("sky", sky))
            maps[FOLLOWS][:height] = 1
        y, x = rng.integers(0, size - 8, 2)
        ball[y : y + 8, x : x + 8] = True
        segments.append(("ball", ball))
        if rng.random() < 0.5:
            maps[MERELY_TOP][: int(rng.integers(2, 5))] = 1
        maps[EVERYWHERE] = (rng.random((8, 8)) < 0.2) * 1.0
        maps[CORNER][0, 0] = number < 3
        split = "heldout" if number % 4 == 3 else "discovery"
        inputs.append(
            ImageEvidenceInput(f"i{number:04d}", split, (size, size), ("ball", "sky"), segments, {MID: map_code(maps)})
        )
    return World(inputs, ("ball", "sky"))
