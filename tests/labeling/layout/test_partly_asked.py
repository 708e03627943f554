"""Where not every picture was asked for every concept, a table counts the pictures that were, for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.labeling.evidence.site_codes import codes_by_site
from gazetteer.labeling.layout.evaluation.baselines import table_of_codes
from gazetteer.labeling.layout.metrics import Truth
from gazetteer.labeling.layout.own_counts import own_counts
from gazetteer.labeling.layout.run import take_images
from gazetteer.labeling.layout.score_maps import evidence_maps
from gazetteer.labeling.layout.site_table import site_tables
from tests.support.runs.small_world import MID, World, map_code


def partly_asked() -> tuple[list[ImageEvidenceInput], Truth]:
    """Feature 0 in 40 pictures, of which 3 were asked for a dog and had none, feature 1 in 20 with one; nobody is asked
    of a cat but where feature 2 fires."""
    mask = np.zeros((16, 16), bool)
    mask[:4] = True
    inputs, pixels, asked = [], np.zeros((63, 2, 64), np.int32), np.zeros((63, 2), bool)
    for i in range(63):
        feature = 0 if i < 40 else 1 if i < 60 else 2
        names = ("cat",) if feature == 2 else ("dog",) if feature or i < 3 else ()
        fires = {feature: np.repeat([1.0, 0.0], (16, 48)).reshape(8, 8)}
        segments = [("dog", mask)] if feature == 1 else []
        inputs.append(ImageEvidenceInput(f"i{i:02}", "discovery", (16, 16), names, segments, {MID: map_code(fires)}))
        pixels[i, 1] = mask.reshape(8, 2, 8, 2).sum(axis=(1, 3)).ravel() if segments else 0
        asked[i] = ["cat" in names, "dog" in names]
    return inputs, Truth(pixels, np.full(64, 4.0), pixels.any(axis=2), asked)


def test_a_support_counts_where_the_concept_was_asked() -> None:
    inputs, truth = partly_asked()
    (table,) = site_tables(build_evidence(inputs, ()), {MID: (8, 8)}, 256.0).values()
    assert (table.concepts, table.features.tolist()) == (("cat", "dog"), [0, 1, 2])
    assert table.area.tolist() == [[0, 3 * 64], [0, 20 * 64], [3 * 64, 0]]
    codes = codes_by_site(World(inputs).codes)[MID]
    np.testing.assert_array_equal(table.area, table_of_codes(codes, truth, table.concepts).area)
    weights = table.weights(np.arange(3), table.intersection, table.area)
    assert weights[0, 0] == weights[2, 1] == 0, "nobody knows"
    # As much as from the three pictures alone, however many there are that nobody was asked about.
    (few,) = site_tables(build_evidence(inputs[:3] + inputs[40:], ()), {MID: (8, 8)}, 256.0).values()
    np.testing.assert_allclose(weights, few.weights(np.arange(3), few.intersection, few.area))


def test_a_picture_takes_out_of_a_table_what_it_put_in() -> None:
    inputs, truth = partly_asked()
    grids = {MID: (8, 8)}
    whole = site_tables(build_evidence(inputs, ()), grids, 256.0)[MID]
    codes = codes_by_site(World(inputs).codes)[MID]
    maps, priors = evidence_maps(whole, codes, own_counts(whole, codes, truth)), whole.prior(truth)
    for i in (0, 10, 50, 61):
        rest = site_tables(build_evidence(inputs[:i] + inputs[i + 1 :], ()), grids, 256.0)[MID]
        np.testing.assert_allclose(priors[i], rest.prior()[0], rtol=1e-6)
        alone = take_images(codes, [inputs[i].image_id])
        found = evidence_maps(replace(rest, expected=whole.expected), alone)[0]
        np.testing.assert_allclose(maps[i], found, rtol=1e-5, atol=1e-5)
