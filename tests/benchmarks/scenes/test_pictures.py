"""Generated pictures judged: named things by two witnesses, looks, counts, and how far they lie from scenes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.scenes.text_to_image.evaluate import Judged, likeness, picture_quality
from benchmarks.scenes.text_to_image.sheets import PICTURES, sheets
from gazetteer.data.scenes.captions import concepts_in
from gazetteer.data.scenes.render import render
from gazetteer.data.scenes.world import CONCEPT_NAMES, EVAL_SEEDS, STYLES
from gazetteer.jobs.config.schema import load_config


def test_named_things_are_asked_of_both_witnesses() -> None:
    images = np.stack([render(EVAL_SEEDS[i]).image for i in range(2)])
    prompts = ["two dogs on grass", "a dog and a tree"]
    numbers = [Counter({"dog": 2}), Counter({"tree": 2, "sea": 1})]
    quality = picture_quality(load_config(), Judged(images, prompts, numbers, [{"dog", "grass"}, {"dog"}]))
    assert quality["found_by_concept"] == {"dog": 0.5, "grass": 0.0, "tree": 1.0}
    assert quality["found_by_classifier_by_concept"] == {"dog": 1.0, "grass": 1.0, "tree": 0.0}
    assert quality["objects_found"] == 0.5 and quality["objects_found_by_classifier"] == 0.75
    assert quality["counts_right_by_concept"] == {"dog": 0.5, "tree": 0.0}


def test_scenes_lie_nearer_to_scenes_than_grey_pictures_do() -> None:
    grey = np.random.default_rng(0).integers(100, 140, (6, 128, 128, 3)).astype(np.uint8)
    distances = likeness(load_config(), grey, ())
    assert distances["kid"][1] > distances["kid_of_scenes"][2]


@pytest.fixture(scope="module")
def looks() -> list[str]:
    drawn = sheets([f"prompt {i}" for i in range(60)])
    assert drawn["scenes_prompts"] == [f"prompt {i}" for i in range(48)]
    assert sheets(["a dog"], "scenes-dit") == {"scenes_dit_prompts": ["a dog"]}
    return drawn["scenes_looks_1"] + drawn["scenes_looks_2"]


def test_the_sheets_show_every_look_with_every_concept(looks: list[str]) -> None:
    assert len(looks) == 2 * PICTURES
    pairs = {(style.name, *concepts_in(text)) for text in looks for style in STYLES if style.name in text}
    assert pairs == {(style.name, concept) for style in STYLES for concept in CONCEPT_NAMES}
    assert [concepts_in(text)[0] for text in looks[:8]] == list(CONCEPT_NAMES[:8])
    assert "a dog at night" in looks and "the sun in neon" in looks
