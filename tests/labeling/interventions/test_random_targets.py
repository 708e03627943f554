"""What edits are compared with: directions at random, as long as the features they stand for, or left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import SAE_UNITS, UNITS, Edit, Target
from gazetteer.labeling.interventions.evaluation.trials import SPATIAL, left_out, random_targets
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder

SITE = Site("mid", "cond", 0.5)


def test_a_random_direction_is_as_long_as_the_features() -> None:
    saes = {SITE: SparseAutoencoder(SAEConfig(8, 16, 2)).initialise(0).eval()}
    features = Target(**SITE.columns(), features=(3, 5), scales=(1.0, 1.0))
    own = float((saes[SITE].decoder[3] + saes[SITE].decoder[5]).detach().norm())
    (drawn,) = random_targets([features], "random_direction", "absolute", saes, (0, 7))
    (free,) = random_targets([features], "random_direction", "update_norm", saes, (0, 7))  # as long as the unit says
    assert np.linalg.norm(drawn.vector) == pytest.approx(own, rel=1e-5)
    assert np.allclose(np.array(free.vector) * (own / np.linalg.norm(free.vector)), drawn.vector, rtol=1e-5)
    (others,) = random_targets([features], "random_features", "code", saes, (0, 7))
    assert len(set(others.features) - {3, 5}) == 2 and not others.vector


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("scales", [(), (2.0, -0.5)])
def test_random_features_add_as_much_as_those_whose_place_they_take(unit: str, scales: tuple[float, ...]) -> None:
    if unit == "feature_p99" and not scales:
        return  # no such edit
    sae = SparseAutoencoder(SAEConfig(8, 16, 2)).initialise(0).requires_grad_(False)
    features = Target(**SITE.columns(), features=(3, 5), scales=scales)
    (alike,) = random_targets([features], "random_features", unit, {SITE: sae}, (0, 7))
    assert alike.scales == scales  # vectors of unit norm
    sae.decoder *= torch.linspace(0.1, 3.0, 16)[:, None]
    (others,) = random_targets([features], "random_features", unit, {SITE: sae}, (0, 7))
    assert others.features == alike.features
    if unit == "code" or (unit == "update_norm" and not scales):  # as much as fires; each at unit length
        assert others.scales == scales
        return
    for own, other, scale, made in zip((3, 5), others.features, scales or (1.0, 1.0), others.scales, strict=True):
        assert made * float(sae.decoder[other].norm()) == pytest.approx(scale * float(sae.decoder[own].norm()), 1e-5)
    sae.decoder[np.setdiff1d(np.arange(16), (1, 2, 3, 5))] = 0.0
    (left,) = random_targets([features], "random_features", unit, {SITE: sae}, (0, 7))
    assert set(left.features) == {1, 2}  # the others have no direction


def test_features_that_count_for_less_make_a_shorter_direction() -> None:
    saes = {SITE: SparseAutoencoder(SAEConfig(8, 16, 2)).initialise(0).eval()}
    features = Target(**SITE.columns(), features=(3, 5), scales=(0.05, -0.02))
    own = float((0.05 * saes[SITE].decoder[3] - 0.02 * saes[SITE].decoder[5]).detach().norm())
    (drawn,) = random_targets([features], "random_direction", "absolute", saes, (0, 7))
    assert np.linalg.norm(drawn.vector) == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("unit", list(UNITS))
def test_a_direction_is_tried_with_the_units_that_an_edit_of_one_takes(unit: str) -> None:
    untried = left_out(unit, "")
    assert set(untried) == ({"random_direction"} if unit in SAE_UNITS else set()) < set(SPATIAL)
    if not untried:
        Edit(targets=(Target(**SITE.columns(), vector=(1.0, 0.0)),), strength=1.0, unit=unit)
    assert left_out(unit, "there are none") == {**untried, "mean_difference": "there are none"}


def test_streams_and_signals_of_a_block_do_not_share_their_random_choices() -> None:
    sae = SparseAutoencoder(SAEConfig(6, 40, 2)).initialise(0)
    sites = [SITE, replace(SITE, stream="text"), replace(SITE, signal="output")]
    targets = [Target(**site.columns(), features=(1, 2, 3)) for site in sites]
    for method in ("random_direction", "random_features"):
        drawn = random_targets(targets, method, "update_norm", dict.fromkeys(sites, sae), (0, 7))
        assert len({target.vector or target.features for target in drawn}) == 3
