"""Captions: a closed vocabulary, findable nouns, prompts that no model was trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from gazetteer.data.scenes.captions import MAX_WORDS, NOUNS, concepts_in, write_caption
from gazetteer.data.scenes.layout import SceneItem, SceneLayout, sample_layout
from gazetteer.data.scenes.prompts import prompt_pool
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.world import CONCEPTS, EVAL_SEEDS, STYLES


def plan(*concepts: str, style: str | None = None, seed: int = 0) -> SceneLayout:
    box = (0.0, 0.5, 0.2, 0.8)
    items = tuple(SceneItem(concept, box, False, 0, "one") for concept in concepts)
    return SceneLayout(seed, style, "meadow", 0.4, items)


def captions_of(layout_of_seed: list[SceneLayout]) -> list[str]:
    return [write_caption(layout, layout.items) for layout in layout_of_seed]


@pytest.mark.parametrize(
    ("text", "concepts"),
    [
        ("two dogs on the grass", ("dog", "grass")),
        ("A Boat, the sea and boats", ("boat", "sea")),
        ("skies over seas at sunset", ("sky", "sea")),
        ("a seaside sunset", ()),
        ("", ()),
    ],
)
def test_concepts_are_found_by_whole_words(text: str, concepts: tuple[str, ...]) -> None:
    assert concepts_in(text) == concepts


def test_every_concept_has_a_singular_and_a_plural() -> None:
    for concept in CONCEPTS:
        assert NOUNS[concept.name] == NOUNS[concept.plural] == concept.name


def test_counts_become_plurals() -> None:
    captions = captions_of([plan("dog", "dog", seed=seed) for seed in range(20)])
    assert all("dogs" in caption for caption in captions)
    assert any("two dogs" in caption for caption in captions)


def test_positions_are_true() -> None:
    captions = captions_of([plan("house", seed=seed) for seed in range(40)])
    assert any("on the left" in caption for caption in captions)
    assert not any("right" in caption or "middle" in caption for caption in captions)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_style_is_always_announced(style: object) -> None:
    name = getattr(style, "name")  # noqa: B009
    for caption in captions_of([plan("dog", "grass", style=name, seed=s) for s in range(20)]):
        assert name in caption


def test_plain_scenes_have_no_style_words() -> None:
    words = {word for style in STYLES for word in style.name.split()}
    for seed in range(200):
        layout = sample_layout(seed)
        if layout.style is None:
            assert not words & set(write_caption(layout, layout.items).split())


def test_the_vocabulary_is_closed_and_captions_are_short() -> None:
    def words(caption: str) -> list[str]:
        return re.findall(r"[a-z]+|,", caption)

    seen = {word for caption in prompt_pool(3000, 1) for word in words(caption)}
    assert len(seen) < 80
    for caption in prompt_pool(500, 2):
        assert caption == caption.lower()
        assert len(words(caption)) <= MAX_WORDS
        assert set(words(caption)) <= seen


def test_prompts_come_from_evaluation_seeds_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def spy(seed: int, views: Sequence[str] = ()) -> SceneLayout:
        seeds.append(seed)
        return sample_layout(seed, views)

    monkeypatch.setattr("gazetteer.data.scenes.prompts.sample_layout", spy)
    assert prompt_pool(5, 7) == prompt_pool(5, 7) != prompt_pool(5, 8)
    assert all(seed in EVAL_SEEDS for seed in seeds)


def test_a_prompt_is_the_caption_of_the_painted_scene_when_everything_is_visible() -> None:
    agree = 0
    for seed in EVAL_SEEDS[:20]:
        layout = sample_layout(seed)
        agree += write_caption(layout, layout.items) == render(seed).caption
    assert agree >= 15


def test_a_negative_number_of_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        prompt_pool(-1)
