"""States of a training: what older versions wrote is read, and what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gazetteer.data.core.errors import InputError
from gazetteer.sae.training.config import TrainConfig
from gazetteer.sae.training.snapshots import SNAPSHOT, begun_as
from gazetteer.sae.training.train import expect_same, finished, identity_of
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


STATE = {"identity": {}, "step": 1, "mse_scale": 1.0, "history": []}
WRONG = {"identity": [], "step": "x", "mse_scale": None, "history": [3]}


@pytest.mark.parametrize(
    "said",
    ["[]", "3", '"x"', "null", "{}", "[" * 100_000, *(json.dumps(STATE | {key: WRONG[key]}) for key in WRONG)],
)
def test_a_state_of_another_shape_is_damaged(said: str, tmp_path: Path) -> None:
    file = tmp_path / SNAPSHOT
    save_file({"idle": torch.zeros(1)}, file, {"state": json.dumps(STATE)})
    assert read_snapshot(file).step == 1 and begun_as(tmp_path) == {}
    save_file({"idle": torch.zeros(1)}, file, {"state": said})
    with pytest.raises(InputError, match=r"the training state .* is damaged; delete it to start over"):
        read_snapshot(file)
    assert begun_as(tmp_path) in (None, {})


@pytest.mark.parametrize("training", [3, "x", ["outcome"], {"outcome": 3, "config": 3}, {"outcome": 3, "data": []}])
def test_a_training_of_another_shape_is_not_compared(training: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"d": 4, "n": 8, "k": 2, "training": training}))
    with pytest.raises(InputError, match=r"does not say any more how it was trained|belongs to another training run"):
        finished(tmp_path, identity_of(SMALL, None, 4, 8, ""))
    with pytest.raises(InputError, match="its config is no object"):
        expect_same({"config": 3}, identity_of(SMALL, None, 4, 8, ""), tmp_path)
