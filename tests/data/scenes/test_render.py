"""Rendered scenes: deterministic, with exact masks and tight boxes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.scenes.captions import concepts_in
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.render import MIN_PIXELS, Scene, render
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS, STYLE_NAMES, TRAIN_SEEDS, VIEWS

ROOT = Path(__file__).resolve().parents[3]
SEEDS = range(40)


@cache
def scenes() -> tuple[Scene, ...]:
    return tuple(render(seed) for seed in SEEDS)


def fingerprint(seeds: range) -> str:
    digest = hashlib.sha256()
    for scene in map(render, seeds):
        digest.update(scene.image.tobytes() + scene.caption.encode())
        for instance in scene.instances:
            digest.update(instance.concept.encode() + instance.mask.tobytes())
    return digest.hexdigest()


def test_a_seed_gives_the_same_scene_in_another_process() -> None:
    code = "from tests.data.scenes.test_render import fingerprint; print(fingerprint(range(12)))"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint(range(12))


def test_different_seeds_give_different_pictures() -> None:
    assert len({scene.image.tobytes() for scene in scenes()}) == len(SEEDS)


@pytest.mark.parametrize("size", [64, 128])
def test_pictures_have_the_size_that_was_asked_for(size: int) -> None:
    scene = render(3, size)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    assert all(instance.mask.shape == (size, size) for instance in scene.instances)


def test_every_pixel_belongs_to_at_most_one_instance() -> None:
    for scene in scenes():
        owners = np.sum([instance.mask for instance in scene.instances], axis=0)
        assert owners.max() == 1
        # What nobody owns are the few pixels of items too small to count.
        assert (owners == 0).sum() < 3 * MIN_PIXELS


def test_boxes_are_tight_around_masks() -> None:
    for scene in scenes():
        for instance in scene.instances:
            x0, y0, x1, y1 = instance.box.astype(int)
            assert instance.mask[y0:y1, x0:x1].sum() == instance.mask.sum() >= MIN_PIXELS
            inside = instance.mask[y0:y1, x0:x1]
            assert inside[0].any() and inside[-1].any()
            assert inside[:, 0].any() and inside[:, -1].any()


def test_the_style_changes_the_picture_but_not_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in SEEDS if sample_layout(seed).style == "neon")
    styled = render(seed)
    monkeypatch.setattr("gazetteer.data.scenes.render.apply_style", lambda style, picture, *_, **__: picture)
    plain = render(seed)
    assert (styled.image != plain.image).mean() > 0.5
    for a, b in zip(styled.instances, plain.instances, strict=True):
        assert a.concept == b.concept and (a.mask == b.mask).all()


def test_things_stand_out_in_every_look_of_the_freer_scenes() -> None:
    ranges: dict[str | None, list[float]] = {}
    for seed in TRAIN_SEEDS[:300]:
        scene = render(seed, views=VIEWS)
        coarse = scene.image.astype(float).reshape(8, 16, 8, 16, 3).mean(axis=(1, 3))
        ranges.setdefault(scene.style, []).append(float(coarse.std(axis=(0, 1)).mean()))
    means = {style: np.mean(values) for style, values in ranges.items()}
    assert set(means) == {None, *STYLE_NAMES}
    assert min(means.values()) > 0.6 * means[None], means


def test_all_concepts_and_styles_occur() -> None:
    layouts = [sample_layout(seed) for seed in range(300)]
    assert {item.concept for layout in layouts for item in layout.items} == set(CONCEPT_NAMES)
    assert {layout.style for layout in layouts} == {None, *STYLE_NAMES}


def test_sun_and_moon_never_share_a_sky() -> None:
    for seed in range(300):
        concepts = Counter(item.concept for item in sample_layout(seed).items)
        assert concepts["sun"] + concepts["moon"] <= 1


def test_location_alone_does_not_tell_the_concept() -> None:
    """The centre of the picture is won by many concepts, none of them in most scenes."""
    centre = Counter(instance.concept for scene in scenes() for instance in scene.instances if instance.mask[64, 64])
    assert len(centre) >= 5
    assert centre.most_common(1)[0][1] < 0.6 * len(SEEDS)


def test_captions_name_only_what_can_be_seen() -> None:
    for scene in scenes():
        visible = {instance.concept for instance in scene.instances}
        assert set(concepts_in(scene.caption)) <= visible


def test_training_and_evaluation_seeds_are_apart() -> None:
    assert not set(TRAIN_SEEDS[:5]) & set(EVAL_SEEDS[:5])
    assert TRAIN_SEEDS.stop <= EVAL_SEEDS.start
