"""The hand-written gradient against automatic differentiation of the dense formulas, in float64 and float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gazetteer.sae.kernels import auxk
from gazetteer.sae.kernels import candidates as ways
from gazetteer.sae.kernels.auxk import auxk_gradients
from gazetteer.sae.kernels.gradients import loss_and_gradients
from gazetteer.sae.model import chunks
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder

D, N, K, BATCH, SCALE = 7, 24, 4, 50, 1.7


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def double_sae(k: int = K, seed: int = 0, shape: SAEConfig | None = None) -> SparseAutoencoder:
    """Untied, not of unit norm, with a bias: nothing that could cancel in a wrong formula."""
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(shape or SAEConfig(D, N, k), dtype=torch.float64)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return sae


def vectors(seed: int = 1) -> Tensor:
    return torch.randn(BATCH, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5


def keep_top(a: Tensor, k: int) -> Tensor:
    """TopK as a dense mask."""
    mask = torch.zeros_like(a).scatter_(1, a.topk(min(k, a.shape[1]), dim=1).indices, 1.0)
    return a * mask


def dense_loss(
    sae: SparseAutoencoder, x: Tensor, dead: list[int], k_aux: int, alpha: float, keep: Callable[..., Tensor] = keep_top
) -> Tensor:
    """The paper's loss, written densely for autograd; `keep` is the TopK over [batch, n]."""
    a = torch.relu((x - sae.bias) @ sae.encoder.T)
    z = keep(a, sae.config.k)
    e_of = {m: x - (z[:, :m] @ sae.decoder[:m] + sae.bias) for m in sae.config.prefixes or (sae.config.n,)}
    loss = SCALE * torch.stack([e.square().mean() for e in e_of.values()]).mean()
    if dead and alpha:
        e = e_of[sae.config.n].detach()
        e_hat = keep_top(a[:, dead], k_aux) @ sae.decoder[dead]
        loss = loss + alpha * (e - e_hat).square().mean() / (e - e.mean(dim=0)).square().mean()
    return loss


def expect_parity(sae: SparseAutoencoder, x: Tensor, dead: list[int], k_aux: int, alpha: float, **how) -> None:
    """Loss and gradients against autograd of the dense formulas, in the precision of `sae`."""
    loss = dense_loss(sae, x, dead, k_aux, alpha, how.pop("keep", keep_top))
    expected = torch.autograd.grad(loss, [sae.encoder, sae.decoder, sae.bias])
    step = loss_and_gradients(sae, x, SCALE, torch.tensor(dead, dtype=torch.int64), k_aux, alpha, **how)
    near = {"atol": 1e-12, "rtol": 1e-10} if x.dtype == torch.float64 else {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(step.loss, loss.detach(), **near)
    for name, ours, theirs in zip(("encoder", "decoder", "bias"), step.gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **near, msg=lambda m, name=name: f"{name}: {m}")


DEAD = [
    pytest.param([], 3, 1 / 32, id="auxk-off"),
    pytest.param([1, 5, 6, 20], 3, 1 / 32, id="auxk-topk"),
    pytest.param([2, 9], 8, 0.7, id="auxk-all-dead-fit"),
    pytest.param(list(range(N)), 5, 1.0, id="everything-dead"),
    pytest.param(list(range(1, N)), 2, 0.7, id="auxk-sparse"),
    pytest.param([3, 4], 2, 0.0, id="alpha-zero"),
]
PRECISIONS = [torch.float64, torch.float32]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("k", [1, K, N])
@pytest.mark.parametrize(("dead", "k_aux", "alpha"), DEAD)
def test_gradient_parity(k: int, dead: list[int], k_aux: int, alpha: float, dtype: torch.dtype):
    expect_parity(double_sae(k).to(dtype), vectors().to(dtype), dead, k_aux, alpha)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("prefixes", [(N,), (1, N), (5, 6, 17, N)], ids=str)
@pytest.mark.parametrize(("dead", "k_aux", "alpha"), DEAD)
def test_gradient_parity_of_matryoshka_prefixes(
    prefixes: tuple[int, ...], dead: list[int], k_aux: int, alpha: float, dtype: torch.dtype
):
    sae = double_sae(shape=SAEConfig(D, N, K, prefixes=prefixes)).to(dtype)
    expect_parity(sae, vectors().to(dtype), dead, k_aux, alpha)


def test_a_prefix_none_of_whose_features_fires_costs_nothing():
    sae = double_sae(shape=SAEConfig(D, N, K, prefixes=(2, N)))
    with torch.no_grad():
        sae.encoder[:2] = 0.0
    expect_parity(sae, vectors(), [4, 5], 3, 1 / 32)


def keep_top_of_batch(a: Tensor, k: int) -> Tensor:
    """BatchTopK as a dense mask."""
    return a * (a >= a.flatten().topk(k * len(a)).values[-1])


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("prefixes", [(), (5, 6, N)], ids=str)
@pytest.mark.parametrize(("dead", "k_aux", "alpha"), DEAD)
def test_gradient_parity_of_batch_topk(
    prefixes: tuple[int, ...], dead: list[int], k_aux: int, alpha: float, dtype: torch.dtype
):
    sae = double_sae(shape=SAEConfig(D, N, K, batch_topk=True, max_k=N, prefixes=prefixes)).to(dtype)
    expect_parity(sae, vectors().to(dtype), dead, k_aux, alpha, keep=keep_top_of_batch)


WITH_CANDIDATES = [
    pytest.param({}, {}, id="topk"),
    pytest.param({"prefixes": (20, 64)}, {}, id="prefixes"),
    pytest.param({"batch_topk": True, "max_k": 20}, {"keep": keep_top_of_batch}, id="batch-topk"),
    pytest.param({"batch_topk": True, "max_k": 20, "prefixes": (9, 64)}, {"keep": keep_top_of_batch}, id="both"),
]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize(("shape", "how"), WITH_CANDIDATES)
@pytest.mark.parametrize(("dead", "k_aux", "alpha"), DEAD)
def test_gradient_parity_with_candidates(
    monkeypatch: pytest.MonkeyPatch, shape: dict, how: dict, dead: list[int], k_aux: int, alpha: float, dtype
):
    # 64 features, so that not all of them are proposed and the rest must be ruled out; also where bfloat16 is slow.
    monkeypatch.setattr(ways, "_is_fast", lambda device: True)
    sae = double_sae(shape=SAEConfig(D, 64, K, **shape)).to(dtype)
    expect_parity(sae, vectors().to(dtype), dead, k_aux, alpha, candidates=True, **how)


OPTIONS = [
    pytest.param({}, {}, id="plain"),
    pytest.param({}, {"candidates": True}, id="candidates"),
    pytest.param({"prefixes": (20, 64)}, {}, id="prefixes"),
    pytest.param({"batch_topk": True, "max_k": 64}, {"keep": keep_top_of_batch}, id="batch-topk"),
]


@pytest.mark.parametrize(("shape", "how"), OPTIONS)
@pytest.mark.parametrize(("dead", "k_aux", "alpha"), DEAD)
def test_gradient_parity_a_few_vectors_at_a_time(
    monkeypatch: pytest.MonkeyPatch, shape: dict, how: dict, dead: list[int], k_aux: int, alpha: float
):
    # 50 vectors in parts of 16, the last of 2.
    for module in (chunks, auxk, ways):
        monkeypatch.setattr(module, "ROWS", 16)
    sae = double_sae(shape=SAEConfig(D, 64, K, **shape)).float()
    expect_parity(sae, vectors().float(), dead, k_aux, alpha, **how)


class Largest(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("candidates", [False, True], ids=["plain", "candidates"])
@pytest.mark.parametrize("dead", [0, 10, 60], ids=["auxk-off", "auxk-dense", "auxk-sparse"])
def test_no_tensor_is_as_large_as_all_preactivations_or_all_chosen_rows(candidates: bool, dead: int):
    batch, d, n, k = 4096, 24, 200, 4
    sae = SparseAutoencoder(SAEConfig(d, n, k)).initialise(0).requires_grad_(False)
    with Largest() as largest:
        loss_and_gradients(sae, torch.randn(batch, d), 1.0, torch.arange(dead), 10, 1 / 32, candidates)
    assert batch * d <= largest.elements < batch * min(n, k * d)


def test_the_gradient_is_the_slope_of_the_loss():
    # Central differences along a random direction, with no formula of ours on the other side.
    sae, x = double_sae(), vectors()
    step = loss_and_gradients(sae, x, SCALE, None, 2, 1 / 32)
    direction = [torch.randn_like(p) for p in sae.parameters()]
    slope = sum((g * v).sum() for g, v in zip(step.gradients, direction, strict=True))
    losses = []
    for sign in (1, -1):
        moved = double_sae()
        with torch.no_grad():
            for parameter, v in zip(moved.parameters(), direction, strict=True):
                parameter.add_(v, alpha=sign * 1e-7)
        losses.append(loss_and_gradients(moved, x, SCALE, None, 2, 1 / 32).loss)
    torch.testing.assert_close((losses[0] - losses[1]) / 2e-7, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("candidates", [False, True], ids=["plain", "candidates"])
@pytest.mark.parametrize("shape", [{}, {"prefixes": (5, N)}, {"batch_topk": True, "max_k": N}], ids=str)
@pytest.mark.parametrize("dead", [[1, 5, 6, 20], list(range(2, 20))], ids=["dense", "sparse"])
def test_auxk_gives_the_encoder_of_dead_features_a_gradient(dead: list[int], shape: dict, candidates: bool, dtype):
    sae, x = double_sae(shape=SAEConfig(D, N, K, **shape)).to(dtype), vectors().to(dtype)
    dead = torch.tensor(dead)
    without = loss_and_gradients(sae, x, SCALE, None, 3, 1 / 32, candidates).gradients
    with_auxk = loss_and_gradients(sae, x, SCALE, dead, 3, 1 / 32, candidates).gradients
    change = with_auxk.encoder - without.encoder
    explaining = keep_top(torch.relu((x - sae.bias) @ sae.encoder[dead].T), 3).gt(0).any(dim=0)
    assert int(explaining.sum()) >= 4
    assert torch.equal(change[dead].norm(dim=1) > 0, explaining)
    live = torch.ones(N, dtype=torch.bool).index_fill_(0, dead, False)
    assert torch.equal(change[live], torch.zeros_like(change[live]))


def test_auxk_counts_the_bias_once():
    # ê holds no b of its own: raising b by δ changes ê only through the encoder, by −W_decᵀ A W_enc δ.
    sae, x, dead = double_sae(), vectors(), torch.tensor([0, 1, 2])
    with torch.no_grad():
        sae.encoder[dead] = 0.0
        sae.encoder[dead, 0] = 1.0  # reads channel 0 alone, so only b_0 can matter
    centred = x - sae.bias
    error = torch.randn_like(x)
    _, _, _, by_bias = auxk_gradients(sae, centred, centred @ sae.encoder[dead].T, error, dead, 3)
    assert by_bias.detach()[0].abs() > 0
    assert by_bias[1:].abs().max() == 0


def test_auxk_of_a_constant_residual_is_nothing():
    sae, x, dead = double_sae(), vectors(), torch.tensor([0, 1])
    centred = x - sae.bias
    loss, *gradients = auxk_gradients(sae, centred, centred @ sae.encoder[dead].T, torch.ones_like(x), dead, 2)
    assert float(loss) == 0
    assert all(float(g.abs().max()) == 0 for g in gradients)


def test_auxk_by_hand():
    # One dead feature that reads and writes channel 0: e = (2, 0), (0, 0); a = 1, 0; ê = (1, 0), (0, 0).
    # ‖e − ê‖² averages to 1/4; e varies by (1 + 1)/4 = 1/2 about its mean (1, 0); AuxK = 1/2.
    sae = SparseAutoencoder(SAEConfig(d=2, n=1, k=1), dtype=torch.float64)
    with torch.no_grad():
        sae.encoder.copy_(torch.tensor([[1.0, 0.0]]))
        sae.decoder.copy_(torch.tensor([[1.0, 0.0]]))
    centred = torch.tensor([[1.0, 3.0], [-1.0, 3.0]], dtype=torch.float64)
    error = torch.tensor([[2.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    loss, by_encoder, by_decoder, by_bias = auxk_gradients(
        sae, centred, centred @ sae.encoder.T, error, torch.tensor([0]), 1
    )
    # dAuxK/dê = −2 (e − ê) / (4 · 1/2) = (−1, 0) on the first vector, da = −1 there, 0 on the other.
    assert float(loss) == 0.5
    assert by_decoder.tolist() == [[-1.0, 0.0]]
    assert by_encoder.tolist() == [[-1.0, -3.0]]
    assert by_bias.tolist() == [1.0, 0.0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, N), st.booleans())
def test_permuting_the_features_permutes_the_gradient(seed: int, k: int, of_batch: bool):
    shape = SAEConfig(D, N, k, batch_topk=of_batch, max_k=N if of_batch else None)
    sae, other, x = double_sae(seed=seed, shape=shape), double_sae(seed=seed, shape=shape), vectors(seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        other.encoder.copy_(sae.encoder[order])
        other.decoder.copy_(sae.decoder[order])
    dead = torch.tensor([2, 3, 11])
    moved = torch.argsort(order)[dead]
    ours = loss_and_gradients(sae, x, SCALE, dead, 2, 0.5)
    theirs = loss_and_gradients(other, x, SCALE, moved, 2, 0.5)
    torch.testing.assert_close(ours.loss, theirs.loss)
    torch.testing.assert_close(ours.gradients.encoder[order], theirs.gradients.encoder)
    torch.testing.assert_close(ours.gradients.decoder[order], theirs.gradients.decoder)
    torch.testing.assert_close(ours.gradients.bias, theirs.gradients.bias)
