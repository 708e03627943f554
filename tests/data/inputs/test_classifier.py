"""A classifier that a configuration names is held to what it promises before anything believes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import import_named
from gazetteer.data.inputs.classifier import NamedClassifier, load_classifier
from gazetteer.data.scenes.render import render

PICTURES = np.stack([render(seed).image for seed in (1, 2)])


class Answering:
    """Labels sky and sea, and whatever answer a test gives it."""

    labels = ("sky", "sea")
    answer: Any = None

    def probabilities(self, pictures: np.ndarray) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Unlabelled(Answering):
    labels = ()


def boom() -> None:
    raise AttributeError("no weights")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (np.full((2, 2), np.nan), "answers nan, which is no probability"),
        (np.full((2, 2), np.inf), "answers inf, which is no probability"),
        (np.array([[0.2, 0.8], [7.5, 0.1]]), "answers 7.5, which is no probability"),
        (np.zeros((2, 3)), r"answers float64 \[2, 3\] for .*accepted: numbers \[2, 2\]"),
        (np.zeros(2), r"answers float64 \[2\]"),
        ([["a", "b"], ["c", "d"]], "a probability a label"),
        (None, "a probability a label"),
        (RuntimeError("boom"), r"fails on pictures \[2, 128, 128, 3\]: RuntimeError: boom"),
    ],
)
def test_what_is_no_probability_is_refused(answer: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "answer", answer)
    classifier = load_classifier(f"{__name__}:Answering", ["sea"], "attribute.classifier")
    with pytest.raises(InputError, match=f"^attribute.classifier '{__name__}:Answering' .*{says}"):
        classifier.probabilities(PICTURES)


def test_probabilities_are_handed_on_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "answer", np.array([[0, 1.0005], [0.5, 0.5]], np.float16))
    answer = load_classifier(f"{__name__}:Answering", []).probabilities(PICTURES)
    assert answer is Answering.answer
    ours = load_classifier("gazetteer.data.scenes.style_classifier:load", ["night"])
    assert ours.probabilities(PICTURES).shape == (2, len(ours.labels))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("os:getcwd", "makes no classifier of pictures: it makes a str"),
        ("nowhere:x", "cannot be imported"),
        (f"{__name__}:boom", "makes no classifier of pictures: no weights"),
        (f"{__name__}:Unlabelled", "makes no classifier"),
        (f"{__name__}:Answering", "does not know 'night'; it knows sky, sea"),
    ],
)
def test_what_is_no_classifier_is_refused_as_it_is_loaded(name: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^steer.classifier .*{says}"):
        load_classifier(name, ["night"])


def test_code_that_cannot_be_called_as_it_will_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"^vocabulary.tagger 'os:getcwd' cannot be called with a picture alone"):
        import_named("os:getcwd", "vocabulary.tagger", takes="a picture")
    assert import_named("os:fspath", "vocabulary.tagger", takes="a picture")


def test_one_picture_after_another_is_asked_about_in_batches_of_one_size() -> None:
    asked: list[tuple[int, ...]] = []

    class Brightness:
        labels = ("bright", "dark")

        def probabilities(self, pictures: np.ndarray) -> np.ndarray:
            asked.append(pictures.shape)
            bright = pictures.mean(axis=(1, 2, 3)) / 255
            return np.stack([bright, 1 - bright], axis=1)

    shades = [*range(40), 200, 201, 50]
    sizes = [(4, 4)] * 40 + [(2, 6)] * 2 + [(4, 4)]
    pictures = (np.full((*size, 3), shade, np.uint8) for shade, size in zip(shades, sizes, strict=True))
    odds = list(NamedClassifier(Brightness(), "brightness", "labels.style_classifier").of_each(pictures))
    assert np.allclose([bright for bright, _ in odds], np.array(shades) / 255)
    assert asked == [(32, 4, 4, 3), (8, 4, 4, 3), (2, 2, 6, 3), (1, 4, 4, 3)]
    assert not list(NamedClassifier(Brightness(), "brightness", "labels.style_classifier").of_each([]))
