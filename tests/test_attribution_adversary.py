"""Words optimised against an edit, on a tiny real pipeline."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from attribution.adversary import Attack, adversarial_words, vocabulary
from attribution.delta import ablation, applied
from attribution.samples import Samples, conditioning, freeze_target, predict, trajectory
from attribution.selection import random_like, scope_weights
from data.errors import InputError
from tests.tiny_pipeline import tiny_pipeline

PROMPTS = ("a red house", "a dog at night")


@pytest.fixture(scope="module")
def pipe() -> object:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def samples(pipe: object) -> Samples:
    found = trajectory(pipe, PROMPTS, [1, 2], steps=2)
    return freeze_target(pipe.unet, replace(found, base=None), 1.0)  # type: ignore[attr-defined]


def loss(pipe: object, samples: Samples, words: str) -> float:
    said = conditioning(pipe, [f"{prompt} {words}" for prompt in PROMPTS])["encoder_hidden_states"]
    with torch.no_grad():
        found = predict(pipe.unet, samples, {**samples.cond, "encoder_hidden_states": said.repeat(2, 1, 1)})  # type: ignore[attr-defined]
    return float(((found - samples.target) ** 2).mean())


def test_words_are_found_that_undo_an_edit_best(pipe: object, samples: Samples) -> None:
    """Every single word is tried where the vocabulary is small enough: the best one must be found."""
    unet, ids = pipe.unet, vocabulary(pipe.tokenizer)[1]  # type: ignore[attr-defined]
    assert {"house", "boats", "night"} <= set(ids)
    weights = scope_weights(unet, "cross")
    every = {name: torch.arange(w.numel()) for name, w in weights.items()}
    half = {name: index[: len(index) // 2] for name, index in random_like(every, weights, 0).items()}
    with applied(unet, ablation(weights, half, {})):
        words, losses = adversarial_words(pipe, PROMPTS, samples, Attack(words=1, rounds=1, tried=len(ids)))
        assert losses[-1] == pytest.approx(loss(pipe, samples, words))
        assert losses[-1] == pytest.approx(min(loss(pipe, samples, word) for word in ids))
        more, losses = adversarial_words(pipe, PROMPTS, samples, Attack(2, rounds=3, tried=3, forbidden={words}))
        assert words not in more.split() and len(more.split()) == 2
        assert all(later <= earlier for earlier, later in itertools.pairwise(losses[1:]))


def test_what_cannot_be_attacked_is_a_sentence(pipe: object, samples: Samples) -> None:
    for prompts, on, attack, words in (
        (PROMPTS, replace(samples, target=None), Attack(), "with targets"),
        (PROMPTS[:1] * 3, samples, Attack(), "of all prompts"),
        (PROMPTS, samples, Attack(words=40), "no room for 40 more words"),
    ):
        with pytest.raises(InputError, match=words):
            adversarial_words(pipe, prompts, on, attack)
    with pytest.raises(InputError, match="rounds must be at least 1"):
        Attack(rounds=0)
