"""Noise that samplers of transformers draw at their steps belongs to the picture's seed, or the sampler is refused."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.generate import Generator
from tests.diffusion.test_transformers import PROMPTS, generation
from tests.support.models.dits import FAMILIES, tiny_dit

DRAWING = (diffusers.FlowMatchLCMScheduler(), diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True))
SEEDED = {"sana": DRAWING, **dict.fromkeys(("pixart_sigma", "hunyuan"), (diffusers.EulerAncestralDiscreteScheduler(),))}


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - SEEDED.keys()))
@pytest.mark.parametrize("scheduler", DRAWING, ids=lambda scheduler: type(scheduler).__name__)
def test_samplers_that_draw_noise_are_refused_where_they_are_handed_no_seed(family: str, scheduler: Any) -> None:
    pipe = tiny_dit(family)
    pipe.scheduler = scheduler
    with pytest.raises(InputError, match=f"seed .{type(pipe).__name__} does not hand .* sampler that draws none"):
        Generator(pipe, generation(family, steps=3))


@pytest.mark.parametrize(("family", "scheduler"), [(name, one) for name, many in SEEDED.items() for one in many])
def test_noise_that_samplers_draw_belongs_to_the_seed_elsewhere(family: str, scheduler: Any) -> None:
    pipe, heard = tiny_dit(family), list[Tensor]()
    pipe.scheduler = scheduler
    made = Generator(pipe, generation(family, t=(0.0,), steps=3, branches=("cond",)))
    for state in (0, 1):
        torch.manual_seed(state)
        made.sample(PROMPTS[:1], [5], lambda _, x, *__: heard.append(x), decode=False)
    assert len(heard) == 2 and torch.equal(*heard)
