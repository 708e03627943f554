"""The direction of dense activations that edits by features are compared with."""

from __future__ import annotations

import json

import numpy as np

from gazetteer.data.core.sites import Site
from gazetteer.labeling.interventions.evaluation.directions import (
    MeanDifference,
    plain_directions,
    read_directions,
)
from gazetteer.labeling.layout.metrics import Truth

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
