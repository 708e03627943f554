"""What the hooks see is output minus input of the block, and they always go."""

from __future__ import annotations

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.capture import attention_blocks, cells, find_block, split_branches, updates, width_of
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return tiny_pipeline().unet


def call(unet: torch.nn.Module, timestep: object, batch: int = 2, height: int = 8, width: int = 8) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, 4, height, width, generator=generator)
    unet(latents, timestep, encoder_hidden_states=torch.randn(batch, 5, 16, generator=generator))


def hooks_left(unet: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())


def test_the_update_is_output_minus_input(unet: torch.nn.Module) -> None:
    seen: dict[str, torch.Tensor] = {}
    block = find_block(unet, BLOCKS[1])
    kept: list[torch.Tensor] = []

    def literal(_: object, args: tuple, kwargs: dict, output: object) -> None:
        kept.append(output[0] - args[0])

    handle = block.register_forward_hook(literal, with_kwargs=True)
    with updates(unet, BLOCKS, lambda name, update: seen.update({name: update})):
        call(unet, 7)
    handle.remove()
    assert torch.equal(seen[BLOCKS[1]], kept[0])
    assert seen[BLOCKS[0]].shape == (2, 32, 4, 4)
    assert not torch.equal(seen[BLOCKS[0]], torch.zeros(2, 32, 4, 4))


def test_grids_need_not_be_square(unet: torch.nn.Module) -> None:
    seen: list[torch.Size] = []
    with updates(unet, BLOCKS[1:], lambda n, update: seen.append(update.shape)):
        call(unet, 1, batch=3, height=8, width=16)
    assert seen == [(3, 32, 4, 8)]


def test_no_hook_is_left_after_an_exception(unet: torch.nn.Module) -> None:
    before = hooks_left(unet)

    def explode(*_: object) -> None:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), updates(unet, BLOCKS, explode):
        call(unet, 1)
    assert hooks_left(unet) == before


def test_an_unknown_block_is_answered_with_those_there_are(unet: torch.nn.Module) -> None:
    with pytest.raises(InputError) as error, updates(unet, ["mid_block.nothing"], lambda *_: None):
        pass
    for known in attention_blocks(unet):
        assert known in str(error.value)
    assert set(BLOCKS) <= set(attention_blocks(unet))
    assert width_of(unet, BLOCKS[0]) == 32


def test_guidance_halves_are_told_apart() -> None:
    pair = torch.arange(4.0).reshape(4, 1)
    halves = split_branches(pair, 2)
    assert halves["uncond"].flatten().tolist() == [0.0, 1.0]
    assert halves["cond"].flatten().tolist() == [2.0, 3.0]
    assert set(split_branches(pair, 4)) == {"cond"}
    with pytest.raises(ValueError, match="neither 3 images"):
        split_branches(pair, 3)
    assert set(split_branches(pair, 2, guided=True)) == {"uncond", "cond"}
    assert set(split_branches(pair, 4, guided=False)) == {"cond"}
    with pytest.raises(InputError, match=r"4 inputs for 2 pictures without guidance.*perturbed attention"):
        split_branches(pair, 2, guided=False)


def test_cells_are_row_major() -> None:
    update = torch.arange(12.0).reshape(1, 2, 2, 3)
    flat = cells(update)
    assert flat.shape == (1, 6, 2)
    assert flat[0, 4].tolist() == [update[0, 0, 1, 1], update[0, 1, 1, 1]]


@pytest.mark.parametrize("path", ["mid_block", "mid_block.resnets.0"])
def test_any_module_that_adds_an_update_can_be_listened_to(unet: torch.nn.Module, path: str) -> None:
    seen: list[torch.Tensor] = []
    with updates(unet, [path], lambda name, update: seen.append(update)):
        call(unet, 7)
    assert seen[0].shape[1] == width_of(unet, path) and seen[0].abs().sum() > 0


def test_a_module_that_changes_the_shape_is_found_out_when_it_runs(unet: torch.nn.Module) -> None:
    downsampler = "down_blocks.0.downsamplers.0.conv"  # as many channels out as in, half the cells
    with (
        updates(unet, [downsampler], lambda name, update: None),
        pytest.raises(InputError, match=r"makes \[2, .* add an update"),
    ):
        call(unet, 7)
    assert hooks_left(unet) == 0
