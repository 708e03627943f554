"""Vectors of words from a model, a file or a function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.vocabulary.word_vectors import word_vectors
from tests.support.models.tiny_pipeline import tiny_pipeline


def test_word_vectors_come_from_a_model_a_file_or_a_function(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("red 1 0\nhouse 0 1\nboat 2 2\n", encoding="utf-8")
    np.testing.assert_allclose(word_vectors(str(file), ["red house", "boat", "moon"]), [[0.5, 0.5], [2, 2], [0, 0]])
    pipe = tiny_pipeline()
    table = pipe.text_encoder.get_input_embeddings().weight
    ids = pipe.tokenizer("house", add_special_tokens=False).input_ids
    np.testing.assert_allclose(word_vectors("model", ["house"], pipe)[0], table[ids].mean(0).numpy(), rtol=1e-6)
    assert word_vectors("tests.labeling.vocabulary.test_word_vectors:letters", ["ab"]).tolist() == [[97.0, 98.0]]
    for wrong, message in (
        ("nowhere.txt", "does not exist"),
        ("tests.labeling.vocabulary.test_word_vectors:none", "know none of the words"),
        ("tests.labeling.vocabulary.test_word_vectors:endless", "numbers that are not finite, such as of 'ab'"),
        ("tests.labeling.vocabulary.test_word_vectors:shouted", "give something else than numbers"),
    ):
        with pytest.raises(InputError, match=message):
            word_vectors(wrong, ["ab"])


def test_real_word_vectors_know_what_is_alike() -> None:
    """GloVe, out of its package: a boat is nearer to a ship and a dog to a cat than either pair to the other."""
    words = ["boat", "ship", "dog", "cat", "pencil sketch", "qqqqzz"]
    found = word_vectors("gazetteer.labeling.vocabulary.glove:vector", words)
    assert found.shape == (6, 50) and not found[5].any()
    unit = found[:5] / np.linalg.norm(found[:5], axis=1, keepdims=True)
    near = unit @ unit.T
    assert min(near[0, 1], near[2, 3]) > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3])
    single = word_vectors("gazetteer.labeling.vocabulary.glove:vector", ["pencil", "sketch"])
    np.testing.assert_allclose(found[4], single.mean(axis=0))


def letters(word: str) -> list[float]:
    return [float(ord(letter)) for letter in word]


def endless(word: str) -> list[float]:
    return [1.0, float("nan")]


def shouted(word: str) -> str:
    return word.upper()


def none(word: str) -> None:
    return None
