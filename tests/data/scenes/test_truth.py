"""Rendered scenes with exact masks, as the tables that `gazetteer layout evaluate --exact` reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gazetteer.data.core.sites import Site
from gazetteer.data.scenes.render import Scene, render
from gazetteer.data.scenes.truth import FIRST, main
from gazetteer.data.scenes.weights import world_views
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS
from gazetteer.data.tables.images import decode_image
from gazetteer.data.tables.masks import struct_to_mask
from gazetteer.data.tables.schemas import IMAGES, SEGMENTS
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.labeling.layout.evaluation import exact as layout_exact
from gazetteer.labeling.layout.evaluation.exact import exact_group

SIZE, GRID = 64, (8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("truth")
    assert main(["--out", str(out), "--images", "2", "--size", str(SIZE)]) == 0
    return out


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render(EVAL_SEEDS[FIRST + number], SIZE, world_views()) for number in range(2)]


def test_pictures_and_captions_are_those_of_the_seeds(folder: Path, scenes: list[Scene]) -> None:
    images = pq.read_table(folder / "images")
    assert images.schema.equals(IMAGES)
    for row, scene in zip(images.to_pylist(), scenes, strict=True):
        assert (row["seed"], row["prompt"], row["split"]) == (scene.seed, scene.caption, "heldout")
        assert row["asked"] == list(CONCEPT_NAMES) and (row["width"], row["height"]) == (SIZE, SIZE)
        assert np.array_equal(decode_image(row["image"]["bytes"]), scene.image)


def test_every_instance_has_its_exact_mask(folder: Path, scenes: list[Scene]) -> None:
    segments = pq.read_table(folder / "segments")
    assert segments.schema.equals(SEGMENTS)
    rows = segments.to_pylist()
    expected = [(f"{i:08d}", one) for i, scene in enumerate(scenes) for one in scene.instances]
    assert len({one.concept for _, one in expected}) > 2
    for row, (name, one) in zip(rows, expected, strict=True):
        assert (row["image_id"], row["concept"], row["area"]) == (name, one.concept, int(one.mask.sum()))
        assert np.array_equal(struct_to_mask(row["mask"]), one.mask)
        assert row["box"] == one.box.tolist()


def test_scenes_are_seen_as_the_models_beside_them_know_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gazetteer.data.core.errors import InputError
    from gazetteer.data.scenes import truth, weights

    assert weights.world_views(tmp_path) == ()
    (tmp_path / weights.WORLD).write_text(json.dumps({"views": ["above", "sky"]}))
    assert weights.read_world(tmp_path) == {"views": ["above", "sky"], "training": {}}
    monkeypatch.setattr(truth, "world_views", lambda: weights.world_views(tmp_path))
    expected = [render(EVAL_SEEDS[truth.LABEL_HALVES["tuning"] + n], views=("above", "sky")) for n in range(3)]
    for picture, scene in zip(truth.pictures(3, "tuning"), expected, strict=True):
        assert picture.prompt == scene.caption and np.array_equal(picture.image, scene.image)
    assert {scene.view for scene in expected} <= {"above", "sky"}
    assert main(["--out", str(tmp_path / "out"), "--images", "1", "--size", str(SIZE)]) == 0
    (row,) = pq.read_table(tmp_path / "out" / "images")["prompt"].to_pylist()
    assert row == render(EVAL_SEEDS[FIRST], SIZE, ("above", "sky")).caption
    for wrong in ('{"views": ["below"]}', "{", "[]"):
        (tmp_path / weights.WORLD).write_text(wrong)
        with pytest.raises(InputError, match=r"world\.json"):
            weights.world_views(tmp_path)


def test_the_layout_evaluation_reads_them(
    folder: Path, scenes: list[Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    concepts = tuple(sorted(CONCEPT_NAMES))
    grids = {Site("mid", "cond", 1.0): GRID}
    run: Any = SimpleNamespace(concepts=concepts, synonyms={}, grids=grids, image_ids=(), splits=np.array([], np.str_))
    given: list[tuple] = []
    monkeypatch.setattr(layout_exact, "noised", lambda pipe, made, t, pictures, *_, **__: given.extend(pictures))
    group = exact_group(run, folder, GenerationConfig(), 8)(None, [1.0], tmp_path)
    assert [prompt for _, prompt, _ in given] == [scene.caption for scene in scenes]
    pixels = group.truth(GRID).pixels
    for i, scene in enumerate(scenes):
        for c, concept in enumerate(concepts):
            masks = [one.mask for one in scene.instances if one.concept == concept]
            union = np.any([np.zeros((SIZE, SIZE), bool), *masks], axis=0)
            cells = union.reshape(8, 8, 8, 8).sum(axis=(1, 3)).ravel()
            assert np.array_equal(pixels[i, c], cells), (i, concept)
