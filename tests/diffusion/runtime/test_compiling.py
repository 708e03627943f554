"""Compiled blocks are heard and steered as they are without a compiler, and what cannot be compiled runs as written."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo import register_backend
from torch._dynamo.utils import counters

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.attention import capture_attention
from gazetteer.diffusion.capture import replaced_update
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig
from gazetteer.diffusion.runtime.compiling import compile_blocks, use_channels_last
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline
from tests.support.runs.layout_runs import GENERATION


def heard(pipe: Any) -> tuple[dict[Any, torch.Tensor], np.ndarray]:
    """Every site's activations, and the pictures."""
    found: dict[Any, torch.Tensor] = {}
    pictures = Generator(pipe, GENERATION).sample(
        ["a red house"], [5], lambda site, x, h, w: found.setdefault(site, x.clone())
    )
    assert pictures is not None
    return found, pictures


@pytest.fixture
def fresh() -> Any:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh")
def test_compiled_blocks_are_heard_edited_and_give_the_same() -> None:
    plain, pipe = tiny_pipeline(), tiny_pipeline()
    compile_blocks(pipe, "eager")
    expected, picture = heard(plain)
    found, same = heard(pipe)
    assert counters["frames"]["ok"] > 0, "nothing was compiled"
    assert found.keys() == expected.keys() and all(torch.equal(found[site], expected[site]) for site in found)
    assert np.array_equal(picture, same)
    edited = []
    for one in (plain, pipe):
        with replaced_update(one.unet, BLOCKS[1], torch.zeros_like):
            edited.append(heard(one)[1])
    assert np.array_equal(*edited) and not np.array_equal(edited[0], picture)


@pytest.mark.usefixtures("fresh")
def test_torchs_own_compiler_changes_last_bits_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config, "compile_threads", 1)
    monkeypatch.setattr("gazetteer.diffusion.runtime.compiling.RESIDUAL", ())  # the blocks that are heard, alone
    expected, picture = heard(tiny_pipeline())
    pipe = tiny_pipeline()
    compile_blocks(pipe, "inductor")
    with caplog.at_level(logging.WARNING, "gazetteer"):
        found, same = heard(pipe)
    gave_up = [one.getMessage() for one in caplog.records if one.name.startswith("gazetteer")]
    assert (len(gave_up) == 0) == any(map(shutil.which, ("g++", "c++", "clang++"))), "a compiler is missed unsaid"
    assert found.keys() == expected.keys()
    for site, x in expected.items():
        torch.testing.assert_close(found[site], x, rtol=1e-4, atol=1e-5)
    assert np.abs(picture.astype(int) - same.astype(int)).max() <= 1


@pytest.mark.usefixtures("fresh")
def test_hooks_inside_of_a_compiled_block_are_not_passed_by() -> None:
    maps = []
    for pipe in (tiny_pipeline(), tiny_pipeline()):
        if maps:
            compile_blocks(pipe, "eager")
            heard(pipe)  # compiled before anybody listens inside
        found: list[torch.Tensor] = []
        with capture_attention(pipe, lambda layer, call, map_, found=found: found.append(map_.clone())):
            heard(pipe)
        maps.append(found)
    assert len(maps[0]) == len(maps[1]) > 0
    assert all(torch.equal(one, other) for one, other in zip(*maps, strict=True))


@pytest.mark.usefixtures("fresh")
def test_a_compiler_that_fails_is_named_once_and_done_without(caplog: pytest.LogCaptureFixture) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler on this machine\nand more lines")

    register_backend(broken, name="gazetteer_broken")
    pipe = tiny_pipeline()
    compile_blocks(pipe, "gazetteer_broken")
    with caplog.at_level(logging.WARNING, "gazetteer"):
        found, picture = heard(pipe)
    expected, plain = heard(tiny_pipeline())
    assert np.array_equal(picture, plain) and found.keys() == expected.keys()
    (record,) = [one for one in caplog.records if one.name.startswith("gazetteer")]
    assert "model.compile=gazetteer_broken failed on" in record.getMessage()
    assert "goes on uncompiled" in record.getMessage() and "\n" not in record.getMessage()


def test_channels_last_changes_how_weights_lie_and_last_bits_alone() -> None:
    pipe = tiny_pipeline()
    use_channels_last(pipe)
    weight = pipe.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    found, expected = heard(pipe)[0], heard(tiny_pipeline())[0]
    for site, x in expected.items():
        torch.testing.assert_close(found[site], x, rtol=1e-4, atol=1e-5)


def test_weights_that_move_are_not_compiled() -> None:
    with pytest.raises(InputError, match=r"model\.compile must be empty"):
        ModelConfig(path="x", device="cuda", offload="sequential", compile="inductor")
