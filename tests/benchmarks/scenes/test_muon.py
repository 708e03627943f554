"""The optimiser of the trainings: orthogonal updates inside, AdamW outside, states that survive a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.scenes.training.muon import Muon, hidden_weights, orthogonal
from benchmarks.scenes.training.parallel import rank, run, workers


@pytest.mark.parametrize("shape", [(6, 6), (4, 30), (30, 4)])
def test_updates_are_nearly_orthogonal_whatever_the_gradient(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(-2, 2, shape[1])
    values = torch.linalg.svdvals(orthogonal(matrix, steps=12))
    assert values.min() > 0.6 and values.max() < 1.3
    # A matrix and a multiple of it have the same nearest orthogonal one.
    assert torch.allclose(orthogonal(matrix), orthogonal(1000 * matrix), atol=0.05)


def test_the_direction_of_a_rotation_is_kept() -> None:
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    assert torch.nn.functional.cosine_similarity(orthogonal(3 * turn).flatten(), turn.flatten(), dim=0) > 0.999


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))


def test_first_layers_norms_biases_and_embeddings_are_left_to_adam() -> None:
    model = nn.ModuleDict({"conv_in": nn.Conv2d(3, 8, 3), "norm": nn.GroupNorm(2, 8), "hidden": nn.Linear(8, 8)})
    inside, rest = hidden_weights([model, nn.Embedding(5, 8)], edges=("conv_in",))
    assert [tuple(parameter.shape) for parameter in inside] == [(8, 8)]
    assert sorted(tuple(parameter.shape) for parameter in rest) == sorted(
        [(8, 3, 3, 3), (8,), (8,), (8,), (8,), (5, 8)]
    )


def test_the_rest_moves_as_adamw_without_decay_moves_it() -> None:
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    mine = Muon([], [ours], rate=0.1, rest_scale=0.5)
    other = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.99), weight_decay=0)
    for step in range(5):
        for parameter, optimizer in ((ours, mine), (theirs, other)):
            optimizer.zero_grad()
            (parameter**2 * (step + 1)).sum().backward()
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-5)


def steps_of_a_network(folder: Path) -> None:
    """Three steps by gradients that all processes share; each writes its weights."""
    torch.set_num_threads(1)
    model = network()
    optimizer = Muon(*hidden_weights([model]), rate=0.02)
    for step in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / f"{workers()}_{rank()}.pt")


def test_processes_that_share_out_the_matrices_step_as_one_alone(tmp_path: Path) -> None:
    run(steps_of_a_network, 1, tmp_path)
    run(steps_of_a_network, 2, tmp_path)
    alone = torch.load(tmp_path / "1_0.pt")
    for number in range(2):
        shared = torch.load(tmp_path / f"2_{number}.pt")
        assert all(torch.equal(shared[name], alone[name]) for name in alone)


def test_it_learns_and_its_state_can_be_saved() -> None:
    model, pictures, labels = network(), torch.randn(16, 3, 8, 8), torch.arange(16) % 2
    optimizer = Muon(*hidden_weights([model]), rate=0.02)

    def step() -> float:
        loss = nn.functional.cross_entropy(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    losses = [step() for _ in range(30)]
    assert losses[-1] < 0.1 * losses[0]
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    state = optimizer.state_dict()
    after = step()
    model.load_state_dict(saved)
    optimizer = Muon(*hidden_weights([model]), rate=0.02)
    optimizer.load_state_dict(state)
    assert step() == after
