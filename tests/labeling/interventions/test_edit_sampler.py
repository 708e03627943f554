"""Edited pictures and those beside them come from the same noise, whatever the sampler."""

from __future__ import annotations

import numpy as np
from diffusers import EulerAncestralDiscreteScheduler

from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.edit_sampler import EditSampler, Start
from gazetteer.diffusion.generate import Generator
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
