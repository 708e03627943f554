"""Scenes seen from several views: where things may be, what is drawn, what captions say, and the plain world beside."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scenes.quadrants import quadrant, quadrants
from gazetteer.data.scenes.captions import MAX_WORDS, VIEW_PHRASES, concepts_in, write_caption
from gazetteer.data.scenes.items import SceneItem, SceneLayout
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.prompts import prompt_pool
from gazetteer.data.scenes.render import MIN_PIXELS, Scene, render
from gazetteer.data.scenes.views.figures import FIGURES
from gazetteer.data.scenes.views.grounds import GROUNDS
from gazetteer.data.scenes.world import CONCEPT_NAMES, CONCEPTS, STYLES, TRAIN_SEEDS, VIEWS

ROOT = Path(__file__).resolve().parents[3]
THINGS = {concept.name for concept in CONCEPTS if concept.kind == "thing"}
# Pictures, captions and masks of the first twelve seeds, as the embedded models saw them in training.
TRAINED_WORLD = "d8675b6ed4ffb13609c18555efd83bc06f221665347fde7302b1fef9bacd79b7"


@cache
def scenes() -> tuple[Scene, ...]:
    return tuple(render(seed, views=VIEWS) for seed in range(40))


@cache
def layouts(count: int = 3000) -> tuple[SceneLayout, ...]:
    return tuple(sample_layout(seed, VIEWS) for seed in range(count))


def fingerprint(seeds: range, views: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for seed in seeds:
        scene = render(seed, views=views)
        digest.update(scene.image.tobytes() + scene.caption.encode())
        for instance in scene.instances:
            digest.update(instance.concept.encode() + instance.mask.tobytes())
    return digest.hexdigest()


def words(caption: str) -> list[str]:
    return re.findall(r"[a-z]+|,", caption)


def test_the_world_is_the_one_the_embedded_models_know() -> None:
    assert fingerprint(range(12), VIEWS) == TRAINED_WORLD


def test_a_seed_gives_the_same_scene_in_another_process() -> None:
    code = "from tests.data.scenes.test_views import VIEWS, fingerprint; print(fingerprint(range(8), VIEWS))"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint(range(8), VIEWS)


def test_every_view_style_and_concept_occurs() -> None:
    seen = Counter(layout.view for layout in layouts())
    assert set(seen) == set(VIEWS)
    assert min(seen.values()) > 0.1 * len(layouts())
    assert {layout.style for layout in layouts()} == {None, *(style.name for style in STYLES)}
    concepts = Counter(concept for layout in layouts() for concept in {item.concept for item in layout.items})
    assert set(concepts) == set(CONCEPT_NAMES)
    assert min(concepts.values()) > 0.05 * len(layouts())


@pytest.mark.parametrize("view", VIEWS)
def test_one_view_can_be_asked_for(view: str) -> None:
    assert {sample_layout(seed, (view,)).view for seed in range(20)} == {view}


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown view 'below'"):
        sample_layout(0, ("above", "below"))


def test_every_thing_stands_in_every_quadrant_often_enough() -> None:
    for concept, fractions in quadrants(TRAIN_SEEDS[:8000], VIEWS).items():
        assert min(fractions.values()) >= 0.15, (concept, fractions)


def test_quadrants_count_pictures_not_things(monkeypatch: pytest.MonkeyPatch) -> None:
    def thing(x: float, y: float) -> SceneItem:
        return SceneItem("dog", (x - 0.1, y - 0.1, x + 0.1, y + 0.1), False, 0)

    pictures = [(thing(0.2, 0.2), thing(0.3, 0.3)), (thing(0.2, 0.2), thing(0.8, 0.8)), ()]
    monkeypatch.setattr(
        "benchmarks.scenes.quadrants.sample_layout", lambda seed, views: SceneLayout(seed, None, "", 0, pictures[seed])
    )
    table = quadrants(range(3))
    assert table["dog"] == {"top left": 1.0, "top right": 0.0, "bottom left": 0.0, "bottom right": 0.5}
    assert set(table["boat"].values()) == {0.0}
    assert quadrant(0.5, 0.49) == "top right"


def test_masks_are_exact_disjoint_and_cover_the_picture() -> None:
    for scene in scenes():
        owners = np.sum([one.mask for one in scene.instances], axis=0)
        assert owners.max() == 1
        assert (owners == 0).sum() < 3 * MIN_PIXELS, scene.seed
        for one in scene.instances:
            x0, y0, x1, y1 = one.box.astype(int)
            inside = one.mask[y0:y1, x0:x1]
            assert inside.sum() == one.mask.sum() >= MIN_PIXELS
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


@pytest.mark.parametrize("concept", sorted(THINGS))
def test_a_mask_holds_all_that_its_thing_changes(concept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking the thing away changes its own pixels; beyond them only soft shadows, halos and smoothed edges."""
    monkeypatch.setattr("gazetteer.data.scenes.render.apply_style", lambda style, picture, *_, **__: picture)
    seed = next(s for s in range(400) if [i.concept for i in layouts()[s].items if i.concept in THINGS] == [concept])
    shown = render(seed, views=VIEWS)
    layout = layouts()[seed]
    bare = SceneLayout(seed, layout.style, layout.ground, layout.horizon, tuple(
        item for item in layout.items if item.concept != concept), layout.view)  # fmt: skip
    monkeypatch.setattr("gazetteer.data.scenes.render.sample_layout", lambda *_: bare)
    change = np.abs(shown.image.astype(int) - render(seed, views=VIEWS).image).max(axis=2)
    mask = next(one.mask for one in shown.instances if one.concept == concept)
    assert (change[mask] > 8).mean() > 0.9
    assert (change[~mask] > 90).mean() < 0.01


def test_single_things_are_common_and_sizes_reach_half_the_picture() -> None:
    counts = Counter(sum(item.concept in THINGS for item in layout.items) for layout in layouts())
    assert counts[1] > 0.4 * len(layouts()) and counts[0] < 0.01 * len(layouts())
    boxes = [item.box for layout in layouts() for item in layout.items if item.concept in THINGS]
    areas = np.array([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes])
    assert areas.max() > 0.45
    assert 0.01 < areas.min() < 0.04
    assert np.mean(areas < 0.06) > 0.15 and np.mean(areas > 0.25) > 0.1


def test_sun_and_moon_never_share_a_picture() -> None:
    for layout in layouts():
        assert sum(item.concept in ("sun", "moon") for item in layout.items) <= 1


def test_things_stand_where_they_belong() -> None:
    for layout in layouts(800):
        regions = {item.concept for item in layout.items} - THINGS
        for item in layout.items:
            if item.concept == "boat":
                assert "sea" in regions
            if item.concept in ("sun", "moon"):
                assert "sky" in regions
            if layout.view == "sky":
                assert item.concept in ("sky", "sun", "moon", "cloud", "balloon")


def test_every_concept_has_a_painter() -> None:
    assert set(GROUNDS) | set(FIGURES) == set(CONCEPT_NAMES)


def test_captions_name_only_what_can_be_seen() -> None:
    for scene in scenes():
        assert set(concepts_in(scene.caption)) <= {one.concept for one in scene.instances}


def test_captions_have_a_closed_vocabulary_and_a_length() -> None:
    seen = {word for caption in prompt_pool(3000, 1, VIEWS) for word in words(caption)}
    assert len(seen) < 80
    for caption in prompt_pool(500, 2, VIEWS):
        assert caption == caption.lower()
        assert len(words(caption)) <= MAX_WORDS
        assert set(words(caption)) <= seen


def test_views_are_named_in_varied_words_and_never_wrongly() -> None:
    found: dict[str, set[str]] = {view: set() for view in VIEWS}
    named: Counter[str] = Counter()
    for layout in layouts():
        caption = write_caption(layout, layout.items)
        for view, phrases in VIEW_PHRASES.items():
            for phrase in phrases:
                if all(part.strip() in caption for part in phrase.split("{}")):
                    assert view == layout.view, (caption, phrase)
                    found[view].add(phrase)
                    named[view] += 1
    assert found == {view: set(phrases) for view, phrases in VIEW_PHRASES.items()}
    totals = Counter(layout.view for layout in layouts())
    assert all(named[view] > 0.6 * totals[view] for view in VIEWS if view != "landscape")


def test_view_phrases_name_no_concept() -> None:
    assert not [phrase for phrases in VIEW_PHRASES.values() for phrase in phrases if concepts_in(phrase)]


def test_places_in_captions_are_true() -> None:
    def place(x: float, y: float, seed: int) -> str:
        item = SceneItem("dog", (x - 0.1, y - 0.1, x + 0.1, y + 0.1), False, 0)
        return write_caption(SceneLayout(seed, None, "", 0, (item,), "landscape"), (item,))

    for x, y, allowed in (
        (0.2, 0.2, {"left", "top"}), (0.8, 0.8, {"right", "bottom"}), (0.5, 0.8, {"bottom"}), (0.5, 0.5, {"middle"}),
    ):  # fmt: skip
        said = {word for seed in range(60) for word in words(place(x, y, seed))}
        assert said & {"left", "right", "top", "bottom", "middle"} == allowed
