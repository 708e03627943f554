"""Samplers of other kinds: targets of models in EDM's form, noise that belongs to no seed, advice that can be taken."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch

from gazetteer.attribution.objective.trajectory import generate_latents, noised_images, trajectory
from gazetteer.attribution.scores.score import ScoreConfig, score_weights
from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.noised import Noised
from gazetteer.diffusion.schedule import takes_ddim
from tests.diffusion.test_noise_error import EDM
from tests.support.models.dits import tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline


@pytest.mark.parametrize("scheduler", EDM, ids=lambda one: f"{type(one).__name__}-{one.config.prediction_type}")
def test_the_target_of_a_denoiser_in_edm_form_is_what_makes_the_picture(scheduler: Any) -> None:
    """D = c_skip x + c_out F = x_0 (Karras et al. 2022, equations 7 and 8), and the noise seen in it is the added."""
    pipe = tiny_pipeline()
    pipe.scheduler = scheduler
    clean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    samples = noised_images(pipe, clean, ["a dog", "a boat"], steps=4, seed=0)
    generator, data = torch.Generator().manual_seed(0), scheduler.config.sigma_data
    scheduler.set_timesteps(4)
    for step, sigma in enumerate(scheduler.sigmas[:4].tolist()):
        eps = torch.randn(clean.shape, generator=generator)
        noisy, here = clean + sigma * eps, slice(2 * step, 2 * step + 2)
        skip, out = data**2 / (sigma**2 + data**2), sigma * data / math.hypot(sigma, data)
        sign = -1.0 if scheduler.config.prediction_type == "v_prediction" else 1.0
        assert samples.target is not None
        expected = (clean - skip * noisy) / (sign * out)
        torch.testing.assert_close(samples.target[here], expected, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(samples.x[here], noisy / math.hypot(sigma, data), rtol=1e-4, atol=1e-5)
        state = Noised(scheduler, step, clean, eps)
        torch.testing.assert_close(state.noise_in(samples.target[here]), eps, rtol=1e-3, atol=1e-3)


DRAWING = (
    diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), diffusers.FlowMatchLCMScheduler(),
)  # fmt: skip


@pytest.mark.parametrize("scheduler", DRAWING, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("objective", ["erase", "amplify"])
def test_samplers_that_are_handed_no_seed_are_refused(scheduler: Any, objective: str) -> None:
    pipe = tiny_dit("sd3")
    pipe.scheduler = scheduler
    with pytest.raises(InputError, match=r"seed .StableDiffusion3Pipeline does not hand .* sampler that draws none"):
        score_weights(pipe, ScoreConfig(concept="boat", objective=objective, steps=3, fraction=0.02))


def test_what_cannot_be_sampled_is_refused_of_a_unet_too() -> None:
    pipe = tiny_pipeline()
    pipe.scheduler = diffusers.DDIMInverseScheduler()
    for sampled in (trajectory, generate_latents):
        with pytest.raises(InputError, match="DDIMInverseScheduler runs from picture to noise"):
            sampled(pipe, ["a dog"], [0], steps=3)
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler()  # which Stable Diffusion's pipeline hands the seed's
    first, again = (generate_latents(pipe, ["a dog"], [5], steps=3) for _ in range(2))
    assert torch.equal(first, again)


def test_ddim_is_advised_where_it_can_be_had_alone() -> None:
    flows = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert [takes_ddim(one) for one in (diffusers.HeunDiscreteScheduler(), *EDM, *DRAWING, flows)] == [True] + 7 * [
        False
    ]
    pipe = tiny_dit("sd3")
    pipe.scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    with pytest.raises(InputError, match="one call a step, such as FlowMatchEulerDiscreteScheduler") as refusal:
        noised_images(pipe, torch.zeros(1, 4, 16, 16), ["a dog"], steps=3)
    assert "ddim" not in str(refusal.value)
