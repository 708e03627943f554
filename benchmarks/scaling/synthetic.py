"""Shards at the shapes of arXiv 2504.15473 (Stable Diffusion 1.4), drawn at random instead of by models.

A concept covers rectangles about a place of its own; a cell that a concept covers fires features of that concept and
features that anything fires, so that
pairs, cells and masks are as many and as sparse as real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import Moment, SparseMap, codes_table
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import FAILURES, IMAGES, SEGMENTS
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence

BLOCKS = {"down_blocks.2.attentions.1": 16, "mid_block.attentions.0": 8, "up_blocks.1.attentions.0": 16}
"""The paper's blocks in Stable Diffusion 1.4, with the cells of a side of their grids."""


@dataclass(frozen=True)
class Shapes:
    """How large things are: by default as in the paper.

    Attributes:
        sites: the first so many of blocks x branches x times, blocks changing fastest.
        features, k: of every autoencoder; slots of a cell.
        pictures: of a shard.
        size: px of a picture's side.
        concepts: asked of every picture.
        segments: of a picture, on average.
    """

    sites: int = 18
    features: int = 5120
    k: int = 10
    pictures: int = 64
    size: int = 512
    concepts: int = 80
    segments: int = 7

    @property
    def listened(self) -> list[tuple[Site, int]]:
        """The sites and the cells of a side of their grids."""
        every = [
            (Site(block, branch, t), side)
            for t in (0.5, 1.0, 0.0)
            for branch in ("cond", "uncond")
            for block, side in sorted(BLOCKS.items(), key=lambda block_side: -block_side[1])
        ]
        return every[: self.sites]

    @property
    def names(self) -> list[str]:
        """The concepts."""
        return [f"concept {number:04d}" for number in range(self.concepts)]


class Synthetic:
    """Draws shards; shard `number` is the same whenever it is asked for."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        world = np.random.default_rng(0)
        self._popular = np.cumsum(1 / (1 + np.arange(shapes.concepts)) ** 0.8)
        self._place = world.uniform(0.2, 0.8, (shapes.concepts, 2))
        weight = world.lognormal(0, 1.2, shapes.features)
        self._common = np.cumsum(weight) / weight.sum()
        self._owned = world.permutation(shapes.features)
        self.moments = {site: Moment(25, 480.0) for site, _ in shapes.listened}

    def shard(self, number: int) -> dict[str, pa.Table]:
        """The five tables of a shard, its evidence counted by the project's own code."""
        random = np.random.default_rng(number + 1)
        inputs = [self._picture(f"{number:06d}-{at:03d}", random) for at in range(self.shapes.pictures)]
        segments = [row for picture in inputs for row in _segment_rows(picture)]
        return {
            "images": pa.Table.from_pylist([self._image_row(picture) for picture in inputs], schema=IMAGES),
            "codes": codes_table(
                [picture.image_id for picture in inputs], [picture.codes for picture in inputs], self.moments
            ),
            "segments": pa.Table.from_pylist(segments, schema=SEGMENTS),
            "evidence": build_evidence(inputs, self.shapes.names),
            "failures": FAILURES.empty_table(),
        }

    def _picture(self, image_id: str, random: np.random.Generator) -> ImageEvidenceInput:
        names, size = self.shapes.names, self.shapes.size
        count = 1 + random.poisson(self.shapes.segments - 1)
        concepts = np.searchsorted(self._popular, random.random(count) * self._popular[-1])
        masks = [self._mask(int(concept), random) for concept in concepts]
        codes = {
            site: self._code(side, [(int(c), m) for c, m in zip(concepts, masks, strict=True)], random)
            for site, side in self.shapes.listened
        }
        split = "heldout" if random.random() < 0.3 else "discovery"
        segments = [(names[int(c)], mask) for c, mask in zip(concepts, masks, strict=True)]
        return ImageEvidenceInput(image_id, split, (size, size), tuple(names), segments, codes)

    def _mask(self, concept: int, random: np.random.Generator) -> NDArray[np.bool_]:
        size = self.shapes.size
        middle = self._place[concept] + random.normal(0, 0.15, 2)
        half = random.uniform(0.05, 0.25, 2)
        low, high = (np.clip((middle + sign * half) * size, 0, size).astype(int) for sign in (-1, 1))
        mask = np.zeros((size, size), np.bool_)
        mask[low[0] : max(high[0], low[0] + 8), low[1] : max(high[1], low[1] + 8)] = True
        mask[size // 2, size // 2] = True  # never empty
        return mask

    def _code(
        self, side: int, segments: Sequence[tuple[int, NDArray[np.bool_]]], random: np.random.Generator
    ) -> SparseMap:
        shapes = self.shapes
        feature = np.searchsorted(self._common, random.random((side * side, shapes.k)))
        step = shapes.size // side
        a_concept = shapes.features // shapes.concepts
        for concept, mask in segments:
            covered = np.flatnonzero(mask[step // 2 :: step, step // 2 :: step][:side, :side])
            own = concept * a_concept + random.integers(0, max(a_concept, 1), (len(covered), 3))
            feature[covered, :3] = self._owned[np.minimum(own, shapes.features - 1)]
        value = random.random(feature.shape).astype(np.float16) + np.float16(0.01)
        ordered = np.sort(feature, axis=1)
        twice = np.concatenate((np.zeros((len(ordered), 1), bool), np.diff(ordered, axis=1) == 0), axis=1)
        value[twice] = 0
        return SparseMap(side, side, shapes.k, ordered.astype(np.uint32).ravel(), value.ravel())

    def _image_row(self, picture: ImageEvidenceInput) -> dict[str, object]:
        size = self.shapes.size
        return {
            "image_id": picture.image_id, "prompt": picture.image_id, "seed": 0, "split": picture.split, "width": size,
            "image": {"bytes": picture.image_id.encode(), "path": f"{picture.image_id}.png"}, "height": size,
            "asked": list(picture.asked), "tokens_cut": 0,
        }  # fmt: skip


def _segment_rows(picture: ImageEvidenceInput) -> list[dict[str, object]]:
    return [
        {
            "image_id": picture.image_id, "concept": concept, "score": 0.5, "box": [0.0, 0.0, 1.0, 1.0],
            "area": int(mask.sum()), "predicted_iou": 0.9, "mask": mask_to_struct(mask),
        }
        for concept, mask in picture.segments
    ]  # fmt: skip
