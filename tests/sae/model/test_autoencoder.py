"""The TopK autoencoder: what a code is, by hand and by the laws it obeys."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.sae.model.autoencoder import Codes, SAEConfig, SparseAutoencoder, top_codes


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small_sae(k: int = 1) -> SparseAutoencoder:
    """d=2, n=3: features along +x, +y and the diagonal; b = (1, 2)."""
    sae = SparseAutoencoder(SAEConfig(d=2, n=3, k=k))
    with torch.no_grad():
        sae.encoder.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
        sae.decoder.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        sae.bias.copy_(torch.tensor([1.0, 2.0]))
    return sae


def random_sae(d: int, n: int, k: int, seed: int = 0) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(SAEConfig(d, n, k)).initialise(seed, torch.randn(d, generator=generator))
    with torch.no_grad():
        sae.encoder.add_(torch.randn(n, d, generator=generator), alpha=0.3)
    return sae


def test_encode_by_hand():
    # x − b = (3, −1): pre-activations 3, −1 and (3 − 1)/2 = 1.
    codes = small_sae(k=1).encode(torch.tensor([[4.0, 1.0]]))
    assert codes.values.tolist() == [[3.0]]
    assert codes.indices.tolist() == [[0]]
    assert codes.indices.dtype == torch.int64


def test_a_slot_without_a_positive_activation_is_empty():
    # Only two features are positive, so the third slot is unused: value 0, feature 0.
    codes = small_sae(k=3).encode(torch.tensor([[4.0, 1.0]]))
    assert codes.values.tolist() == [[3.0, 1.0, 0.0]]
    assert codes.indices.tolist() == [[0, 2, 0]]


def test_decode_by_hand():
    # x̂ = 3 f_0 + 1 f_2 + b = (3 + 0.6 + 1, 0.8 + 2).
    x_hat = small_sae(k=3)(torch.tensor([[4.0, 1.0]]))
    torch.testing.assert_close(x_hat, torch.tensor([[4.6, 2.8]]))


def test_nothing_fires_at_the_bias_itself():
    sae = small_sae(k=2)
    codes = sae.encode(sae.bias.detach()[None])
    assert codes.values.tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(sae.decode(codes)[0], sae.bias)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_of_equal_activations_the_lower_feature_wins(k: int):
    rows = torch.tensor([[0.5, 1.0, 1.0, 1.0], [1.0, 2.0, 2.0, 0.0], [-1.0, 0.0, 0.0, -3.0]])
    expected = [[1, 2, 3, 0][:k], [1, 2, 0, 0][:k], [0] * k]
    assert top_codes(rows, k).indices.tolist() == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 5))
def test_ties_do_not_depend_on_the_rest_of_the_batch(seed: int, k: int, batch: int):
    # Few distinct values, so that ties are everywhere; a stable sort is the definition.
    rows = torch.randint(-2, 4, (batch, 12), generator=torch.Generator().manual_seed(seed)).float()
    values, order = rows.relu().sort(dim=1, descending=True, stable=True)
    codes = top_codes(rows, k)
    assert torch.equal(codes.values, values[:, :k])
    assert torch.equal(codes.indices, order[:, :k].masked_fill(values[:, :k] == 0, 0))
    for row in range(batch):
        assert torch.equal(top_codes(rows[row : row + 1], k).indices[0], codes.indices[row])


def test_a_large_batch_is_encoded_as_its_parts_are():
    sae, x = random_sae(6, 20, 3), torch.randn(2500, 6)
    whole = sae.encode(x)
    for start in (0, 1024, 2048):
        part = sae.encode(x[start : start + 1024])
        assert torch.equal(part.values, whole.values[start : start + 1024])
        assert torch.equal(part.indices, whole.indices[start : start + 1024])


SEEDS, PRECISIONS = st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 8), st.integers(1, 20), PRECISIONS)
def test_k_equal_to_n_is_a_dense_relu_autoencoder(seed: int, d: int, n: int, dtype: torch.dtype):
    sae = random_sae(d, n, n, seed).to(dtype)
    x = 3 * torch.randn(20, d, generator=torch.Generator().manual_seed(seed)).to(dtype)
    dense = torch.relu((x - sae.bias) @ sae.encoder.T) @ sae.decoder + sae.bias
    near = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(sae(x), dense, atol=near, rtol=near)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 8), st.integers(1, 32))
def test_permuting_the_features_permutes_the_codes(seed: int, d: int, k: int):
    # In float64, where no two activations are as close as their rounding.
    generator = torch.Generator().manual_seed(seed)
    sae, shuffled = random_sae(d, 32, k, seed).double(), random_sae(d, 32, k, seed).double()
    x, order = torch.randn(30, d, generator=generator).double(), torch.randperm(32, generator=generator)
    with torch.no_grad():
        shuffled.encoder.copy_(sae.encoder[order])
        shuffled.decoder.copy_(sae.decoder[order])
    before, after = sae.encode(x), shuffled.encode(x)
    torch.testing.assert_close(after.values, before.values)
    used = after.values > 0
    assert torch.equal(order[after.indices][used], before.indices[used])
    torch.testing.assert_close(shuffled.decode(after), sae.decode(before))


def test_decode_equals_the_dense_product():
    sae = random_sae(8, 32, 5)
    codes = sae.encode(torch.randn(30, 8))
    dense = torch.zeros(30, 32).scatter_add_(1, codes.indices, codes.values)
    torch.testing.assert_close(sae.decode(codes), dense @ sae.decoder + sae.bias)


def test_autograd_runs_through_encode_and_decode():
    sae, x = random_sae(8, 32, 32), torch.randn(4, 8, requires_grad=True)
    sae(x).square().sum().backward()
    dense = torch.relu((x.detach().requires_grad_() - sae.bias) @ sae.encoder.T)
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert sae.decoder.grad is not None
    x_hat = (dense @ sae.decoder + sae.bias).detach()
    torch.testing.assert_close(sae.decoder.grad, dense.detach().T @ (2 * x_hat), atol=1e-4, rtol=1e-4)


def test_half_precision_codes_decode():
    sae = random_sae(8, 32, 5)
    codes = sae.encode(torch.randn(3, 8))
    rounded = Codes(codes.values.half(), codes.indices)
    torch.testing.assert_close(sae.decode(rounded), sae.decode(codes), atol=1e-2, rtol=1e-2)


def test_a_fresh_sae_is_tied_and_of_unit_norm():
    sae = SparseAutoencoder(SAEConfig(d=5, n=40, k=2)).initialise(seed=3, bias=torch.arange(5.0))
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(40))
    assert torch.equal(sae.encoder, sae.decoder)
    assert sae.bias.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(sae.decoder, SparseAutoencoder(SAEConfig(5, 40, 2)).initialise(seed=3).decoder)


@pytest.mark.parametrize(("d", "n", "k"), [(0, 4, 1), (4, 0, 1), (4, 4, 0), (4, 4, 5)])
def test_impossible_shapes_are_refused(d: int, n: int, k: int):
    with pytest.raises(InputError):
        SAEConfig(d, n, k)


def test_vectors_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"\[batch, 2\], not \[1, 3\]"):
        small_sae().encode(torch.zeros(1, 3))
