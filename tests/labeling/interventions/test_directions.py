"""The direction of dense activations that edits by features are compared with."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from gazetteer.data.core.sites import Site
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.labeling.interventions.evaluation.directions import (
    MeanDifference,
    mean_directions,
    plain_directions,
    read_directions,
)
from gazetteer.labeling.layout.metrics import Truth
from tests.support.models.dits import tiny_dit

SITE = Site("mid", "cond", 0.5)


def test_the_dense_direction_is_the_mean_in_the_concepts_cells_minus_that_of_their_places() -> None:
    """Two pictures of two cells, one channel each way: the dog is in the first cell of the first picture."""
    dense = np.array([[[5.0, 1.0], [2.0, 0.0]], [[1.0, 3.0], [2.0, 0.0]]])
    pixels = np.zeros((2, 2, 2), np.int32)
    pixels[0, 0, 0], pixels[0, 1, 1], pixels[1, 1, 1] = 4, 2, 2  # boat: half of the second cell of both
    truth = Truth(pixels, np.full(2, 4.0), pixels.any(axis=2), np.ones((2, 2), bool))
    whole, parts = MeanDifference(), MeanDifference()
    whole.add(dense, truth)
    for number in range(2):
        parts.add(dense[number : number + 1], truth.take(np.array([number])))
    np.testing.assert_allclose(whole.vectors(), [[5 - 3, 1 - 2], [0, 0]])
    np.testing.assert_allclose(parts.vectors(), whole.vectors())
    directions = {SITE: {"dog": (2.0, -1.0)}}
    third = SITE.at(1 / 3)  # a slug holds two decimals of it
    for made in (directions, {third: {"dog": (2.0, -1.0)}, SITE.at(0.125): {"dog": (1.0, 0.0)}}):
        assert read_directions(json.loads(json.dumps(plain_directions(made))), [SITE, *made]) == made


def test_directions_of_a_run_of_words_and_pictures_are_of_the_pictures() -> None:
    """Lumina 2 gives each prompt's text a length of its own, so that several at once cannot be listened to."""
    generation = GenerationConfig(
        steps=2, guidance=3.0, height=128, width=256, blocks=("layers.1",), branches=("cond",), t=(1.0,),
        streams=("image", "text"),
    )  # fmt: skip
    seen, words = generation.sites
    assert (seen.stream, words.stream) == ("image", "text")
    pixels = np.zeros((2, 1, 128), np.int32)
    pixels[0, 0, 0] = 1
    truth = Truth(pixels, np.full(128, 1.0), pixels.any(axis=2), np.ones((2, 1), bool))
    run = SimpleNamespace(
        of_split=lambda *_: np.arange(2), grids={seen: (8, 16), words: (1, 256)}, concepts=("dog",), seeds=[1, 2],
        truth=lambda *_: truth, prompts=["a red house", "two boats on the sea at night"],
    )  # fmt: skip
    directions = mean_directions(run, tiny_dit("lumina2"), generation, ("cond",), 0, batch_size=2)  # type: ignore[arg-type]
    assert set(directions) == {seen} and len(directions[seen]["dog"]) == 16
