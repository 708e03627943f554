"""What goes beyond a plain TopK: BatchTopK, Matryoshka prefixes, codes found through candidates, kept checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.sae.kernels import candidates as ways
from gazetteer.sae.kernels.candidates import candidate_codes, encode_by_candidates
from gazetteer.sae.kernels.gradients import loss_and_gradients
from gazetteer.sae.model.autoencoder import Codes, SAEConfig, SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.model.threshold import batch_threshold
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.snapshots import latest_snapshot
from gazetteer.sae.training.train import SNAPSHOT
from gazetteer.sae.training.trainer import Trainer
from tests.sae.model.test_autoencoder import random_sae
from tests.sae.training.test_train import SMALL, Stop, synthetic, trained, weights


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def identity_sae(d: int, **options) -> SparseAutoencoder:
    """Feature i reads and writes channel i; b = 0: the pre-activations are the vector itself."""
    sae = SparseAutoencoder(SAEConfig(d, d, **options))
    with torch.no_grad():
        sae.encoder.copy_(torch.eye(d))
        sae.decoder.copy_(torch.eye(d))
    return sae


def test_batch_topk_by_hand():
    # Two vectors and k=1: the two largest of all six activations, wherever they are.
    sae = identity_sae(3, k=1, batch_topk=True, max_k=3)
    x = torch.tensor([[5.0, 4.0, 1.0], [3.0, 2.0, -1.0]])
    step = loss_and_gradients(sae, x, 1.0, None, 1, 0.0)
    assert step.codes.values.tolist() == [[5, 4, 0], [0, 0, 0]]
    assert step.codes.indices.tolist() == [[0, 1, 0], [0, 0, 0]]
    # What is left over: 1 of the first vector, the whole second one.
    assert float(step.mse) == pytest.approx((1 + 9 + 4 + 1) / 6)


def test_one_vector_of_a_batch_cannot_take_more_than_max_k():
    sae = identity_sae(4, k=1, batch_topk=True, max_k=2)
    step = loss_and_gradients(sae, torch.tensor([[9.0, 8.0, 7.0, 6.0], [3.0, 2.0, 1.0, 0.0]]), 1.0, None, 1, 0.0)
    assert step.codes.values.tolist() == [[9, 8], [0, 0]]


def test_batch_topk_encodes_by_its_threshold_and_not_by_the_batch():
    sae = identity_sae(3, k=1, batch_topk=True, max_k=3)
    sae.threshold.fill_(2.5)
    x = torch.tensor([[5.0, 4.0, 1.0], [3.0, 2.0, -1.0]])
    codes = sae.encode(x)
    assert codes.values.tolist() == [[5, 4, 0], [3, 0, 0]]
    assert codes.indices.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert sae.encode(x[1:]).values.tolist() == [[3, 0, 0]]
    torch.testing.assert_close(sae(x), torch.tensor([[5.0, 4.0, 0.0], [3.0, 0.0, 0.0]]))


def test_training_learns_the_threshold_that_leaves_k_features_on_average(tmp_path: Path):
    config = replace(SMALL, batch_topk=True, max_k=12, steps=200)
    result = trained(tmp_path, config, heldout=[synthetic(500, seed=0)[0]])
    assert result.metrics is not None
    assert 2.7 < result.metrics.l0 < 3.3  # k = 3
    after = batch_threshold(result.sae, synthetic(2000)[0])
    assert abs(float(result.sae.threshold) / after - 1) < 0.1, "what untrained weights gave is forgotten"
    assert result.metrics.explained_variance > 0.5
    loaded, stated = load_pretrained(tmp_path)
    assert (stated["batch_topk"], stated["max_k"]) == (True, 12)
    assert float(loaded.threshold) == float(result.sae.threshold) > 0


def test_matryoshka_prefixes_by_hand():
    # x = (2, 1): feature 0 alone leaves (0, 1), both leave nothing: the mean of 1/2 and 0.
    sae = identity_sae(2, k=2, prefixes=(1, 2))
    step = loss_and_gradients(sae, torch.tensor([[2.0, 1.0]]), 1.0, None, 1, 0.0)
    assert float(step.mse) == 0.25
    # dL/dx̂_1 = −2 · (0, 1) / (2 · 2); only feature 0 is in that prefix.
    assert step.gradients.decoder.tolist() == [[0.0, -1.0], [0.0, 0.0]]
    assert step.gradients.bias.tolist() == [0.0, -0.5]


def test_a_prefix_of_a_matryoshka_sae_reconstructs_by_itself(tmp_path: Path):
    x = synthetic(1000)[0]

    def error_of_first_quarter(config: TrainConfig, folder: str) -> float:
        sae = trained(tmp_path / folder, replace(config, steps=300)).sae
        codes = sae.encode(x)
        first = Codes(codes.values.masked_fill(codes.indices >= 6, 0.0), codes.indices)
        return float((x - sae.decode(first)).square().mean())

    assert error_of_first_quarter(replace(SMALL, prefixes=(0.25, 0.5)), "nested") < 0.9 * error_of_first_quarter(
        SMALL, "plain"
    )
    assert load_pretrained(tmp_path / "nested")[1]["prefixes"] == [6, 12, 24]


@pytest.mark.parametrize(
    "options",
    [
        {"max_k": 4},
        {"batch_topk": True, "max_k": 1},
        {"batch_topk": True, "max_k": 9},
        {"prefixes": (4,)},
        {"prefixes": (4, 4, 8)},
        {"prefixes": (0, 8)},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict):
    with pytest.raises(InputError):
        SAEConfig(8, 8, 2, **options)


@pytest.mark.parametrize("options", [{"prefixes": (0.5, 0.25)}, {"prefixes": (1.0,)}, {"batch_topk": 1}])
def test_training_options_out_of_range_are_named(options: dict):
    with pytest.raises(InputError, match=f"sae.train.{next(iter(options))}"):
        TrainConfig(**options)


def same_codes(found: Codes, expected: Codes) -> None:
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-5)
    # Where two activations agree to rounding either order is right; elsewhere the features are the same.
    apart = expected.values[:, :-1] - expected.values[:, 1:] > 1e-5 * expected.values[:, :1] + 1e-6
    clear = torch.nn.functional.pad(apart, (1, 0), value=True) & torch.nn.functional.pad(apart, (0, 1), value=False)
    assert torch.equal(found.indices[clear], expected.indices[clear])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 300.0]), st.integers(1, 6))
def test_candidates_find_the_same_codes(seed: int, scale: float, k: int):
    sae = random_sae(48, 128, k, seed)
    x = scale * torch.randn(40, 48, generator=torch.Generator().manual_seed(seed)) + sae.bias
    same_codes(encode_by_candidates(sae, x), sae.encode(x))


def test_candidates_that_cannot_be_told_apart_go_through_the_full_product(monkeypatch: pytest.MonkeyPatch):
    # All 200 features are within bfloat16's rounding of each other, and the best ones are not among the proposed.
    sae = SparseAutoencoder(SAEConfig(8, 200, 3))
    with torch.no_grad():
        sae.encoder.copy_(torch.ones(200, 8) + 1e-4 * torch.randn(200, 8))
        sae.decoder.copy_(sae.encoder)
    full: list[int] = []
    monkeypatch.setattr(ways, "_is_fast", lambda device: True)
    monkeypatch.setattr(ways, "plain_codes", spy(ways.plain_codes, full))
    x = torch.rand(30, 8) + 1
    same_codes(encode_by_candidates(sae, x), sae.encode(x))
    assert full == [30]


def test_clear_winners_need_no_full_product(monkeypatch: pytest.MonkeyPatch):
    full: list[int] = []
    monkeypatch.setattr(ways, "_is_fast", lambda device: True)
    monkeypatch.setattr(ways, "plain_codes", spy(ways.plain_codes, full))
    sae = random_sae(64, 512, 2)
    chosen = torch.randint(512, (100, 2))
    x = (sae.decoder[chosen] * torch.tensor([3.0, 2.0])[None, :, None]).sum(dim=1) + sae.bias
    with torch.no_grad():
        sae.encoder.copy_(sae.decoder)
    same_codes(candidate_codes(sae, x - sae.bias), sae.encode(x))
    assert sum(full) < 50


def spy(function, rows: list[int]):
    def watched(sae, centred):
        rows.append(len(centred))
        return function(sae, centred)

    return watched


def test_training_with_candidates_learns_the_same():
    x = synthetic(256)[0]
    plain, coarse = (Trainer(16, replace(SMALL, n=64, candidates=flag), 40) for flag in (False, True))
    for trainer in (plain, coarse):
        trainer.start(x)
        for _ in range(5):
            trainer.advance(x)
    torch.testing.assert_close(coarse.sae.decoder, plain.sae.decoder, atol=1e-3, rtol=1e-3)


def test_a_plain_checkpoint_says_nothing_of_options(tmp_path: Path):
    random_sae(6, 12, 3).save_pretrained(tmp_path)
    _, config = load_pretrained(tmp_path)
    assert not {"batch_topk", "max_k", "prefixes", "latent_bias", "threshold"} & set(config)


def stopped_at(folder: Path, step: int, **settings) -> None:
    def stop(done: int, steps: int) -> None:
        if done == step:
            raise Stop

    with pytest.raises(Stop):
        trained(folder, replace(SMALL, **settings), on_step=stop)


def test_the_last_checkpoints_are_kept_while_the_run_lasts(tmp_path: Path):
    stopped_at(tmp_path, 30, keep=2)
    names = [f"training-{step:09d}.safetensors" for step in (21, 28)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, SNAPSHOT]
    trained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_damaged_checkpoint_is_named_and_an_older_one_leads_to_the_same_bytes(tmp_path: Path):
    trained(tmp_path / "whole")
    folder = tmp_path / "damaged"
    stopped_at(folder, 30, keep=3)
    for name in (SNAPSHOT, "training-000000028.safetensors"):
        (folder / name).unlink()
        (folder / name).write_bytes(b"not a state")
    with pytest.warns(UserWarning, match=r"training-000000028.safetensors is damaged"):
        state = latest_snapshot(folder)
    assert state is not None
    assert state.step == 21
    with pytest.warns(UserWarning, match="An older one is used"):
        trained(folder)
    assert weights(folder) == weights(tmp_path / "whole")


@pytest.mark.parametrize("options", [{"batch_topk": True}, {"prefixes": (0.5,)}, {"candidates": True, "n": 64}])
def test_runs_with_options_resume_to_the_same_bytes(tmp_path: Path, options: dict):
    config = replace(SMALL, **options)
    trained(tmp_path / "whole", config)
    stopped_at(tmp_path / "stopped", 17, **options)
    trained(tmp_path / "stopped", config)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    with pytest.raises(InputError, match=rf"config.{next(iter(options))}"):
        trained(tmp_path / "whole", replace(SMALL, n=config.n))


def test_a_run_from_before_the_options_is_the_same_run(tmp_path: Path):
    trained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name in ("batch_topk", "max_k", "prefixes", "candidates"):
        del config["training"]["config"][name]
    path.write_text(json.dumps(config))
    assert trained(tmp_path).already_done


def test_compiling_that_fails_is_said_and_left_out(monkeypatch: pytest.MonkeyPatch):
    def broken(function):
        def call(*args):
            raise RuntimeError("no C++ compiler was found")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    x = synthetic(256)[0]
    plain, compiled = (Trainer(16, replace(SMALL, compile=flag), 40) for flag in (False, True))
    plain.start(x)
    compiled.start(x)
    with pytest.warns(UserWarning, match=r"sae.train.compile is left out, for the compiler failed: no C\+\+ compiler"):
        compiled.advance(x)
    compiled.advance(x)  # no second attempt, no second warning
    for _ in range(2):
        plain.advance(x)
    assert torch.equal(plain.sae.encoder, compiled.sae.encoder)


@pytest.mark.full
@pytest.mark.compiler
@pytest.mark.parametrize("options", [{}, {"prefixes": (0.5,)}, {"batch_topk": True}], ids=str)
def test_compiled_training_learns_the_same(options: dict, recwarn: pytest.WarningsRecorder):
    x = synthetic(256)[0]
    plain, compiled = (
        Trainer(16, replace(SMALL, compile=flag, dead_after=64, **options), 40) for flag in (False, True)
    )
    for trainer in (plain, compiled):
        trainer.start(x)
        for _ in range(4):
            trainer.advance(x)
    assert not [one for one in recwarn if "sae.train.compile is left out" in str(one.message)]
    for name, value in plain.sae.state_dict().items():
        torch.testing.assert_close(compiled.sae.state_dict()[name], value, atol=1e-5, rtol=1e-5)
