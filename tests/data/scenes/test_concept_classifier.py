"""The classifier that says which concepts a picture shows: the truth it is taught, and what the trained one knows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.scenes.classifiers.concepts import MIN_VISIBLE, fractions_right, known_entropy, softened, truth
from benchmarks.scenes.evaluate import kappa
from gazetteer.data.scenes import render as painter
from gazetteer.data.scenes.concept_classifier import ConceptClassifier, load, pooled, save
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.render import Scene, render
from gazetteer.data.scenes.world import CONCEPT_NAMES, CONCEPTS, EVAL_SEEDS

THINGS = {concept.name for concept in CONCEPTS if concept.kind == "thing"}


@pytest.fixture(scope="module")
def model() -> ConceptClassifier:
    return load()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render(seed) for seed in EVAL_SEEDS[60_000:60_150]]


def means(model: ConceptClassifier, pictures: np.ndarray, scenes: list[Scene]) -> tuple[float, float]:
    answers = np.array([[concept in words for concept in CONCEPT_NAMES] for words in model.shown(pictures)])
    precision, recall = fractions_right(answers, np.stack([truth(scene)[0] for scene in scenes]))
    return float(precision.mean()), float(recall.mean())


def test_a_saved_concept_classifier_answers_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConceptClassifier(labels=("sun", "dog"), widths=(8, 16, 24), dilations=(1, 3)).eval()
    save(model, tmp_path)
    again = load(tmp_path)
    pictures = np.stack([render(seed).image for seed in range(3)])
    assert again.labels == ("sun", "dog")
    assert np.array_equal(again.probabilities(pictures), model.probabilities(pictures))


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path)


def test_answers_do_not_depend_on_company(model: ConceptClassifier, scenes: list[Scene]) -> None:
    pictures = np.stack([scene.image for scene in scenes[:5]])
    answers = model.probabilities(pictures)
    assert answers.shape == (5, 16) and answers.dtype == np.float32
    assert np.array_equal(answers, np.concatenate([model.probabilities(one[None]) for one in pictures]))
    assert model.probabilities(pictures[:0]).shape == (0, 16)


def test_the_four_best_squares_decide() -> None:
    cells = torch.full((1, 2, 3, 3), -9.0)
    cells[0, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
    cells[0, 0, 2, 2] = 6.0
    assert pooled(cells).tolist() == [[3.0, -9.0]]


def test_slivers_are_neither_shown_nor_absent() -> None:
    scene = next(s for s in map(render, range(100)) if {"sea", "boat"} <= {one.concept for one in s.instances})
    sea, boat, dog = (CONCEPT_NAMES.index(name) for name in ("sea", "boat", "dog"))
    few = np.zeros((128, 128), np.bool_)
    few[8, :MIN_VISIBLE] = True
    for count, expected in ((MIN_VISIBLE, 1), (MIN_VISIBLE - 1, 2)):
        few[8, count:] = False
        shown, cells = truth(
            replace(
                scene,
                instances=tuple(replace(one, mask=few) if one.concept == "boat" else one
                                for one in scene.instances if one.concept != "sea")
            )
        )  # fmt: skip
        # The sea is in the plan but hidden, the dog is not in the plan.
        assert (shown[boat], shown[sea], shown[dog]) == (expected, 2, 0)
        # Eight of 64 pixels of a square: something, but less than a fifth.
        assert cells[boat, 1].tolist() == [2] * 5 + [0] * 11
    few[8:10, :8] = True
    assert truth(scene)[1][dog].max() == 0


def test_precision_and_recall_leave_out_what_is_not_known() -> None:
    true = np.array([[1], [1], [0], [0], [2]], np.uint8)
    answers = np.array([[True], [False], [True], [False], [True]])
    precision, recall = fractions_right(answers, true)
    assert (precision.tolist(), recall.tolist()) == ([0.5], [0.5])


def test_what_is_not_known_costs_nothing() -> None:
    true = torch.tensor([[1, 0, 2]], dtype=torch.uint8)
    # Half of -log(1/2) - log(4/5), whatever is said of the third.
    for third in (-7.0, 7.0):
        scores = torch.tensor([[0.0, -math.log(4), third]])
        assert known_entropy(scores, true).item() == pytest.approx((math.log(2) + math.log(1.25)) / 2)


def test_kappa_is_what_agreement_is_beyond_chance() -> None:
    mine, other = np.array([1, 1, 1, 0], np.bool_), np.array([1, 1, 0, 0], np.bool_)
    # Three of four agree; by chance 3/4 x 1/2 + 1/4 x 1/2 = 1/2 would.
    assert kappa(mine, other) == 0.5
    assert kappa(mine, mine) == 1
    assert kappa(np.ones(4), np.ones(4)) is None


def test_the_trained_classifier_knows_unseen_scenes(model: ConceptClassifier, scenes: list[Scene]) -> None:
    assert model.labels == CONCEPT_NAMES
    precision, recall = means(model, np.stack([scene.image for scene in scenes]), scenes)
    assert precision >= 0.9
    assert recall >= 0.9


def test_it_knows_them_after_the_autoencoder_too(model: ConceptClassifier, scenes: list[Scene]) -> None:
    some = scenes[:60]
    pixels = softened(torch.tensor(np.stack([scene.image for scene in some])).permute(0, 3, 1, 2))
    precision, recall = means(model, pixels.permute(0, 2, 3, 1).numpy(), some)
    assert precision >= 0.85
    assert recall >= 0.85


def test_a_thing_taken_out_of_a_scene_is_no_longer_shown(
    model: ConceptClassifier, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, still = [], []
    for scene in scenes:
        concept = next((one.concept for one in scene.instances if one.concept in THINGS), None)
        if concept is None:
            continue
        layout = sample_layout(scene.seed)
        rest = replace(layout, items=tuple(item for item in layout.items if item.concept != concept))
        with monkeypatch.context() as patch:
            patch.setattr(painter, "sample_layout", lambda _seed, _views=(), rest=rest: rest)
            without = render(scene.seed)
        before, after = model.shown(np.stack([scene.image, without.image]))
        shown.append(concept in before)
        still.append(concept in after)
    assert len(shown) >= 100
    assert np.mean(shown) >= 0.9
    assert np.mean(still) <= 0.05
