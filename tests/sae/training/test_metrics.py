"""The quality numbers, by hand."""

from __future__ import annotations

import json

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.training.metrics import Metrics, evaluate, loss_recovered
from tests.sae.model.test_autoencoder import random_sae


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def one_channel_sae() -> SparseAutoencoder:
    """d=2, n=2, k=1: keeps the larger positive channel; b = 0."""
    sae = SparseAutoencoder(SAEConfig(d=2, n=2, k=1))
    with torch.no_grad():
        sae.encoder.copy_(torch.eye(2))
        sae.decoder.copy_(torch.eye(2))
    return sae


def test_by_hand():
    # x̂ = (2, 0), (4, 0), (0, 3), (0, 3), so e = (0, 1), (0, 1), (0, 0), (2, 0).
    x = torch.tensor([[2.0, 1.0], [4.0, 1.0], [0.0, 3.0], [2.0, 3.0]])
    metrics = evaluate(one_channel_sae(), [x])
    # Var(x) = 2, 1; Var(e) = 3/4, 1/4: 1 − 3/8 = 5/8 and 1 − 1/4 = 3/4.
    assert metrics.explained_variance == pytest.approx((5 / 8 + 3 / 4) / 2)
    assert metrics.explained_total_variance == pytest.approx(1 - 1 / 3)
    # Σe² = 6 over Σ(x − mean)² = 4·3.
    assert metrics.scaled_mse == pytest.approx(6 / 12)
    cosines = [2 / 5**0.5, 4 / 17**0.5, 1.0, 3 / 13**0.5]
    assert metrics.cosine == pytest.approx(sum(cosines) / 4)
    assert (metrics.l0, metrics.dead_share, metrics.vectors) == (1.0, 0.0, 4)


def test_the_batching_does_not_matter():
    # In float64: in float32 the rounding of products, which depends on the batch, is not far below this spread.
    sae, x = random_sae(8, 32, 4).double(), torch.randn(101, 8, dtype=torch.float64) * 0.01 + 100.0
    whole, parts = evaluate(sae, [x]), evaluate(sae, x.split(7))
    assert whole.density == parts.density
    assert whole.explained_variance == pytest.approx(parts.explained_variance, rel=1e-9)
    assert whole.scaled_mse == pytest.approx(parts.scaled_mse, rel=1e-9)
    assert whole.cosine == pytest.approx(parts.cosine, rel=1e-9)
    assert (whole.l0, whole.dead_share) == (parts.l0, parts.dead_share)


def test_a_large_mean_does_not_drown_the_variance():
    # b takes the whole mean away; what is left is explained fully although it is a millionth of the mean.
    sae = one_channel_sae()
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    with torch.no_grad():
        sae.bias.fill_(2.0**20)
    metrics = evaluate(sae, [x + 2.0**20])
    assert metrics.explained_variance == pytest.approx(1.0)


def test_features_that_never_fire_are_dead():
    metrics = evaluate(one_channel_sae(), [torch.tensor([[1.0, 0.0], [2.0, -1.0]])])
    assert metrics.dead_share == 0.5


def test_a_constant_channel_is_left_out_of_the_mean():
    metrics = evaluate(one_channel_sae(), [torch.tensor([[1.0, 0.0], [2.0, 0.0]])])
    assert metrics.explained_variance == 1.0


def test_nothing_to_measure_is_said():
    with pytest.raises(InputError, match="no held-out vectors"):
        evaluate(one_channel_sae(), [])
    with pytest.raises(InputError, match="all the same"):
        evaluate(one_channel_sae(), [torch.ones(3, 2)])


def test_the_density_of_every_feature_is_counted():
    # Of 10 vectors feature 0 fires on 9 (0.9), feature 1 on one (0.1: the border belongs to the class below it).
    x = torch.tensor([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    assert evaluate(one_channel_sae(), [x]).density == (0, 0, 0, 0, 0, 1, 1)
    assert evaluate(one_channel_sae(), [x[:9] + torch.rand(9, 1)]).density == (1, 0, 0, 0, 0, 0, 1)
    assert sum(evaluate(random_sae(8, 32, 4), [torch.randn(500, 8)]).density) == 32


def test_metrics_come_back_from_json_and_from_before_there_were_densities():
    metrics = evaluate(one_channel_sae(), [torch.tensor([[1.0, 0.0], [0.0, 1.0]])])
    assert Metrics(**json.loads(json.dumps(metrics.as_dict()))) == metrics
    older = {key: value for key, value in metrics.as_dict().items() if key not in ("density", "loss_recovered")}
    assert Metrics(**older).density == ()


def test_loss_recovered_by_hand():
    assert loss_recovered(error=1.0, ablated=5.0, reconstructed=2.0) == 0.75
    assert loss_recovered(error=1.0, ablated=5.0, reconstructed=5.0) == 0.0
    with pytest.raises(InputError, match="did no harm"):
        loss_recovered(1.0, 1.0, 1.0)
