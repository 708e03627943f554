"""What samplers and networks are told: the noise of coarse steps, and guidance that is distilled into a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gazetteer.diffusion.edit_sampler import EditSampler, Start
from gazetteer.diffusion.generate import Generator
from tests.diffusion.test_transformers import PROMPTS, generation, pipeline
from tests.support.models.dits import flux


def test_a_flow_in_coarse_steps_lands_on_the_same_sigmas(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = EditSampler(Generator(pipeline("sd3"), generation("sd3", steps=6, t=(1.0,))), {}, stride=3)
    assert sampler.stride == 3
    scheduler, taken = sampler.pipe.scheduler, []
    step = scheduler.step

    def noted(output: Tensor, t: Tensor, *arguments: Any, **named: Any) -> Any:
        result = step(output, t, *arguments, **named)
        taken.append(tuple(float(sigma) for sigma in scheduler.sigmas[scheduler.step_index - 1 :][:2]))
        return result

    monkeypatch.setattr(scheduler, "step", noted)
    sampler.unedited([Start(PROMPTS[0], 3)])
    fine = [*(start for start, _ in taken), taken[-1][1]]
    assert len(fine) == 7 and fine[-1] == 0.0
    taken.clear()
    sampler.edited([Start(PROMPTS[0], 3)], [[]], "early")
    assert taken == [(fine[0], fine[3]), (fine[3], fine[6])]


def test_guidance_inside_the_model_is_told_to_it() -> None:
    torch.manual_seed(0)
    pipe = flux(guidance_embeds=True)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.eval()
    made = Generator(pipe, generation("flux"))
    assert made.schedule.timesteps[0] == pytest.approx(1000.0) and made.schedule.count == 2
    told: list[float] = []
    pipe.transformer.register_forward_pre_hook(
        lambda _, __, named: told.append(float(named["guidance"][0])), with_kwargs=True
    )
    made.sample(PROMPTS[:1], [1], lambda *_: None, decode=False)  # its shifted schedule is the one that was rehearsed
    assert told == [made.config.guidance] * 2 and made.config.guidance != 3.5, "not the pipeline's own"
