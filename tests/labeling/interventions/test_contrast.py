"""How much more a feature fires where a concept is: what merely shares the concept's place counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest

from gazetteer.labeling.interventions.contrast import concept_contrasts, picture_means, word_contrast
from gazetteer.labeling.layout.run import LayoutRun, open_run
from tests.support.runs.layout_runs import world_run
from tests.support.runs.small_world import EVERYWHERE, FOLLOWS, MERELY_TOP, MID, sky_world


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LayoutRun:
    return open_run(world_run(tmp_path_factory.mktemp("contrast") / "run", sky_world(80), "a sky and a ball"))


def test_a_weight_is_what_the_place_does_not_explain(run: LayoutRun) -> None:
    found = dict(zip(*concept_contrasts(run, MID)["sky"], strict=True))
    images = run.of_split("discovery")
    codes, truth = run.codes(MID, images), run.truth((8, 8), images)
    dense = np.zeros((len(images), 4, 64))
    dense[codes.image, codes.feature, codes.cell] = codes.value
    fraction = truth.pixels[:, run.concepts.index("sky")] / 16.0
    for feature in (FOLLOWS, MERELY_TOP, EVERYWHERE):
        excess = (fraction * (dense[:, feature] - dense[:, feature].mean(axis=0))).sum() / fraction.sum()
        assert found.get(feature, 0.0) == pytest.approx(max(excess, 0.0), abs=1e-5)
    others = [found.get(feature, 0.0) for feature in (MERELY_TOP, EVERYWHERE)]
    assert found[FOLLOWS] > 5 * max(others)


def test_a_word_is_what_its_pictures_have_more_of(run: LayoutRun) -> None:
    codes = run.codes(MID, run.of_split("discovery"))
    used, means = picture_means(codes)
    has = means[:, list(used).index(FOLLOWS)] > 0
    features, weights = word_contrast(codes, np.arange(len(has)), has)
    by_hand = means[has].mean(axis=0) - means[~has].mean(axis=0)
    assert features[0] == FOLLOWS and weights[0] == pytest.approx(by_hand.max(), abs=1e-5)
    assert all(weight > 0 for weight in weights) and len(features) == (by_hand > 0).sum()
