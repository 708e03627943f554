"""States of a training: what older versions wrote is read, and what cannot be is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.trainer import Trainer, read_snapshot

SMALL = TrainConfig(k=2, n=8, batch_size=4, steps=10, dead_after=256)


def test_a_state_from_before_dead_features_were_kept_is_read(tmp_path: Path):
    """Those it would hold follow from how long each feature has been idle; without that it is refused by name."""
    trainer = Trainer(4, SMALL, 10)
    trainer.idle.copy_(torch.arange(8) * 10**9)
    trainer.look()
    trainer.save(tmp_path / "state", {})
    snapshot = read_snapshot(tmp_path / "state")
    assert snapshot.tensors["dead"].tolist() == list(range(1, 8))
    del snapshot.tensors["dead"]
    older = Trainer(4, SMALL, 10)
    older.restore(snapshot)
    assert older._dead.tolist() == list(range(1, 8))
    del snapshot.tensors["idle"]
    with pytest.raises(InputError, match=r"does not fit this SAE \(it lacks 'idle'\); delete it to start over"):
        older.restore(snapshot)
