"""Unified concept editing: the closed form is the minimum it claims to be, on matrices and on a tiny pipeline."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gazetteer.attribution.edits.closed_form import concept_edit, name_embeddings, rewritten
from gazetteer.attribution.edits.delta import applied
from gazetteer.attribution.edits.methods import Methods
from gazetteer.attribution.edits.problems import MethodConfig
from gazetteer.attribution.objective.prompts import without
from gazetteer.attribution.objective.trajectory import conditioning
from gazetteer.attribution.scores.selection import scope_weights
from gazetteer.data.core.errors import InputError
from tests.support.models.tiny_pipeline import tiny_pipeline


def test_the_closed_form_is_the_minimum_of_the_three_distances() -> None:
    torch.manual_seed(0)
    weight, moved, goal, kept = (torch.randn(*shape) for shape in ((3, 4), (2, 4), (2, 4), (3, 4)))

    def loss(w: torch.Tensor) -> float:
        moves = (moved @ w.T - goal @ weight.T).square().sum() + (kept @ w.T - kept @ weight.T).square().sum()
        return float(moves + 0.5 * (w - weight).square().sum())

    found = rewritten(weight, (moved, goal), kept, 0.5)
    assert loss(found) < loss(weight)
    assert all(loss(found) < loss(found + 0.01 * torch.randn_like(found)) for _ in range(50))
    # By hand: one direction moves to another, with no ridge to speak of; what stands upright on it stays.
    by_hand = rewritten(torch.tensor([[1.0, 2.0]]), (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])),
                        torch.zeros(0, 2), 1e-9)  # fmt: skip
    torch.testing.assert_close(by_hand, torch.tensor([[2.0, 2.0]]))
    torch.testing.assert_close(rewritten(weight, (moved, moved), kept, 0.5), weight)  # to where it is


def test_a_name_is_read_at_its_last_token() -> None:
    pipe = tiny_pipeline()
    states = conditioning(pipe, ["a red house", ""])["encoder_hidden_states"]
    ids = pipe.tokenizer("a red house").input_ids
    found = name_embeddings(pipe, ["a red house", ""])
    assert torch.equal(found[0], states[0, [len(ids) - 2]].float())
    assert torch.equal(found[1], states[1, [0]].float())


def test_keys_and_values_of_a_name_become_those_of_the_base_and_others_stay() -> None:
    pipe = tiny_pipeline()
    cross = scope_weights(pipe.unet, "cross")
    edit = concept_edit(pipe, cross, "dog", "", ["house", "boats"], ridge=1e-6)
    read = {name for name in cross if name.endswith(("to_k.weight", "to_v.weight"))}
    assert set(edit.changes) == read and read
    dog, base, house = name_embeddings(pipe, ["dog", "", "house"])[:, 0]
    before = {name: cross[name].detach().clone() for name in read}
    with applied(pipe.unet, edit):
        for name in read:
            now = cross[name].detach()
            torch.testing.assert_close(now @ dog, before[name] @ base, atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(now @ house, before[name] @ house, atol=1e-3, rtol=1e-3)
            assert (now @ dog - before[name] @ dog).norm() > 0.1 * (before[name] @ dog).norm()
    assert all(torch.equal(cross[name], before[name]) for name in read)
    methods = Methods(pipe, MethodConfig(steps=2), ["dog", "house"], {}, without)
    assert set(methods.edit("erase", "uce", "dog", 1.0).changes) == read
    with pytest.raises(InputError, match="none"):
        concept_edit(pipe, {"w": nn.Parameter(torch.zeros(2, 2))}, "dog", "", [])
