"""Edited pictures and those beside them come from the same noise, whatever the sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.diffusion.capture import width_of
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.edit_sampler import EditSampler, Start
from gazetteer.diffusion.generate import Generator
from tests.support.models.dits import tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline

BLOCK = "mid_block.attentions.0"


def test_a_sampler_that_adds_noise_draws_the_noise_of_the_seed() -> None:
    config = GenerationConfig(steps=4, guidance=3.0, blocks=(BLOCK,), branches=("cond",))
    pipe = tiny_pipeline()
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    generator, starts = Generator(pipe, config), [Start("a red house", 3), Start("a dog at night", 4)]
    sampler = EditSampler(generator, {}, batch_size=2)
    assert set(sampler.first.values()) == {0}
    plain = generator.sample([start.prompt for start in starts], [start.seed for start in starts], lambda *_: None)
    assert plain is not None
    for pictures in (sampler.unedited(starts), sampler.edited(starts, [[], []], "middle")):
        assert all(map(np.array_equal, pictures, plain))


@pytest.mark.parametrize("family", ["lumina2", "sd3"])
def test_words_are_edited_whatever_the_lengths_of_the_prompts_beside_them(family: str) -> None:
    pipe, calls = tiny_dit(family), list[int]()
    block = next(iter(adapter_of(pipe).blocks(pipe.transformer)))
    size = {"height": 128, "width": 256} if family == "lumina2" else {"height": 32, "width": 64}
    config = GenerationConfig(
        steps=2, guidance=3.0, blocks=(block,), branches=("cond",), t=(1.0,), streams=("image", "text"), **size
    )
    vector = tuple(torch.randn(width_of(pipe, block), generator=torch.Generator().manual_seed(0)).tolist())
    edit = Edit(targets=(Target(block, vector=vector, stream="text"),), strength=0.5)
    generator, starts = Generator(pipe, config), [Start("a red house", 3), Start("two boats on the sea at night", 4)]
    alone = [EditSampler(generator, {}).edited([start], [[edit]], "early")[0] for start in starts]
    sampler = EditSampler(generator, {})
    sampler.prepare(starts)
    pipe.vae.decoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    pictures = sampler.edited(starts, [[edit], [edit]], "early")
    assert calls == ([1, 1] if family == "lumina2" else [2])  # where lengths differ alone, one prompt a call
    for picture, own, plain in zip(pictures, alone, sampler.unedited(starts), strict=True):
        assert np.abs(picture.astype(int) - own).max() <= 1 and (picture != plain).any()
