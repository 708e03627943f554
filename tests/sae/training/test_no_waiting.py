"""A step on an accelerator asks it for nothing: no number, no size and no index comes back to the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gazetteer.sae.kernels.gradients import loss_and_gradients
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.trainer import LOOK_EVERY, Trainer

SHAPES: list[dict[str, Any]] = [
    {},
    {"prefixes": (0.25,)},
    {"batch_topk": True},
    {"batch_topk": True, "prefixes": (0.5,)},
]


@pytest.mark.parametrize("dead", [0, 5, 40])
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_no_step_between_two_looks_waits_for_the_device(options: dict[str, Any], dead: int) -> None:
    """Tensors without values, on a device that is not there: whatever needs a value of theirs raises."""
    with FakeTensorMode():
        trainer = Trainer(8, TrainConfig(k=3, n=48, k_aux=4, log_every=1000, **options), 1000, "cuda")
        trainer._dead = torch.arange(dead, device="cuda")
        for trainer.step in range(1, LOOK_EVERY):
            step = trainer.advance(torch.randn(64, 8, device="cuda"))
        assert step.loss.device.type == "cuda"
        with pytest.raises(Exception, match="_local_scalar_dense"):
            trainer.look()


@pytest.mark.parametrize("options", [{}, {"prefixes": (6, 24)}, {"batch_topk": True, "max_k": 8}], ids=str)
@pytest.mark.parametrize("dead", [0, 3, 20])
def test_unused_slots_kept_in_place_change_nothing(
    options: dict[str, Any], dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done on an accelerator, carried out here: the same loss and gradients as where slots are left out."""
    generator = torch.Generator().manual_seed(3)
    sae = SparseAutoencoder(SAEConfig(7, 24, 4, **options)).requires_grad_(False).initialise(1)
    x = torch.randn(50, 7, generator=generator) * 2 - 0.8
    x[:9] = sae.bias  # no feature fires
    plain = loss_and_gradients(sae, x, 1.3, torch.arange(dead), 2, 0.1)
    monkeypatch.setattr("gazetteer.sae.kernels.sparse._on_host", lambda tensor: False)
    kept = loss_and_gradients(sae, x, 1.3, torch.arange(dead), 2, 0.1)
    assert bool((plain.codes.values == 0).any())
    torch.testing.assert_close(kept.loss, plain.loss)
    for ours, theirs in zip(kept.gradients, plain.gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
