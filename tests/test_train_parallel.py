"""Two training processes take the step that one would take on their batches together."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from data.scenes.train.parallel import average_gradients, rank, run, shared, workers


def part_of_a_step(folder: Path, rows: int) -> None:
    """Gradients of this process's share of the rows, averaged; the first process writes them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2), torch.randn(rows, 3)
    share = rows // workers()
    layer(x[rank() * share : (rank() + 1) * share]).square().mean().backward()
    average_gradients(list(layer.parameters()))
    decided = shared(10.0 + rank())
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    torch.save({**gradients, "decided": torch.tensor(decided)}, folder / f"{workers()}_{rank()}.pt")


def test_two_workers_average_to_the_step_of_one(tmp_path: Path) -> None:
    run(part_of_a_step, 1, tmp_path, 8)
    run(part_of_a_step, 2, tmp_path, 8)
    whole, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    for name in ("weight", "bias"):
        torch.testing.assert_close(first[name], whole[name])
        assert torch.equal(first[name], second[name])
    assert first["decided"] == second["decided"] == 10.0
