"""Masks live as long as their batch: what a shard keeps of them are run lengths and counts."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gazetteer.data.inputs.prompts import make_item
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.pipeline.shard import ShardResult, Unfinished
from gazetteer.labeling.pipeline.stages import Stages
from gazetteer.labeling.segment.protocol import Box, Mask, Segmenter

ITEMS = [make_item(prompt, 0, "settings") for prompt in ("a dog and a boat", "a tree", "the sun", "a cat on sand")]


class Counted:
    """A segmenter that notes how many masks of earlier calls are still held when it is called."""

    def __init__(self, own: Segmenter) -> None:
        self.own, self.held = own, list[int]()
        self._masks: list[weakref.ref[Any]] = []

    def segment(self, images: Sequence[Any], boxes: Sequence[Sequence[Box]]) -> list[list[Mask]]:
        """As the real one."""
        self.held.append(self.alive())
        masks = self.own.segment(images, boxes)
        self._masks += [weakref.ref(mask.mask) for own in masks for mask in own]
        return masks

    def alive(self) -> int:
        """Masks that are still held."""
        return sum(mask() is not None for mask in self._masks)


def stages_of(helpers: int, *names: str) -> Stages:
    config = load_config(None, ["batch_size=2", f"helpers={helpers}", "generation.steps=2", "generation.t=[1.0]"])
    stages = Stages(config.stages, names) if names else Stages(config.stages)
    if stages.segmenter is not None:
        stages.segmenter = Counted(stages.segmenter)
    return stages


@pytest.fixture(scope="module")
def whole() -> tuple[Stages, ShardResult]:
    stages = stages_of(0)
    result = stages.run(ITEMS)
    assert isinstance(result, ShardResult) and result.counts["segments"] >= 4
    return stages, result


def test_no_batch_finds_the_masks_of_the_one_before(whole: tuple[Stages, ShardResult]) -> None:
    stages, _ = whole
    assert stages.segmenter.held == [0, 0] and stages.segmenter.alive() == 0
    helped = stages_of(2)
    helped.run(ITEMS)
    assert helped.segmenter.held == [0, 0] and helped.segmenter.alive() == 0


def test_workers_hand_run_lengths_on_and_make_the_same_tables(whole: tuple[Stages, ShardResult]) -> None:
    generate, find, count = stages_of(2, "generate"), stages_of(2, "detect", "segment"), stages_of(2, "evidence")
    made = generate.run(ITEMS)
    cut = find.run(made)
    assert isinstance(made, Unfinished) and isinstance(cut, Unfinished)
    assert find.segmenter.held == [0, 0] and find.segmenter.alive() == 0, "neither those handed on nor those given"
    assert all(not picture.masks for picture in [*made.pictures, *cut.pictures])
    result = count.run(pickle.loads(pickle.dumps(cut)))
    for name, table in whole[1].tables.items():
        assert result.tables[name].equals(table), name


def test_evidence_of_pooled_masks_is_that_of_masks() -> None:
    from gazetteer.labeling.evidence.counts import build_evidence
    from gazetteer.labeling.evidence.shard_masks import pool_segments
    from tests.support.runs.strategies import random_image

    rng = np.random.default_rng(0)
    images = [random_image(rng, number, ("sky",)) for number in range(6)]
    grids = sorted({(m.height, m.width) for picture in images for m in picture.codes.values()})
    kept = [replace(picture, segments=[], pooled=pool_segments(picture, grids)) for picture in images]
    assert any(picture.segments for picture in images)
    assert build_evidence(kept, ("sky",)).equals(build_evidence(images, ("sky",)))
