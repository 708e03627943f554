"""What is recorded of a site is what was heard, for every sampler of diffusers; the others are refused by name."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import step_of
from gazetteer.data.tables.codes import Moment
from gazetteer.diffusion.capture import capture_updates
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.schedule import Schedule, rehearsed
from gazetteer.diffusion.watch import Call
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

TS = (1.0, 0.5, 0.25, 0.0)
SAMPLERS = sorted(name for name in dir(diffusers) if name.endswith("Scheduler"))
REFUSED = frozenset(
    {
        # of other families of models, as their own pipelines know how to call them
        "AmusedScheduler", "BlockRefinementScheduler", "CogVideoXDPMScheduler", "DDPMWuerstchenScheduler",
        "DiscreteDDIMScheduler", "EntropyBoundScheduler", "FlowMapEulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
        "HeliosDMDScheduler", "HeliosScheduler", "KarrasVeScheduler", "LTXEulerAncestralRFScheduler",
        "MiniMaxH3Scheduler", "PiflowScheduler", "RFD4ProteinaScheduler", "RePaintScheduler", "SCMScheduler",
        "ScoreSdeVeScheduler", "UnCLIPScheduler", "VQDiffusionScheduler",
        # from picture to noise
        "DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler",
        # of a library that is not installed here; with it, their noise does not belong to a picture's seed
        "CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler",
    }
)  # fmt: skip
VARIANTS: list[tuple[str, int, dict[str, Any]]] = [
    ("DPMSolverMultistepScheduler", 100, {"use_karras_sigmas": True}),  # whole timesteps, several of them twice
    ("DPMSolverMultistepScheduler", 20, {"algorithm_type": "sde-dpmsolver++", "use_exponential_sigmas": True}),
    ("EulerDiscreteScheduler", 20, {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
    ("EulerDiscreteScheduler", 20, {"timestep_spacing": "trailing", "use_karras_sigmas": True}),
    ("EDMDPMSolverMultistepScheduler", 20, {"sigma_min": 0.002, "sigma_max": 80.0}),
    ("HeunDiscreteScheduler", 25, {"use_karras_sigmas": True}),
    ("PNDMScheduler", 10, {"skip_prk_steps": True}),
    ("PNDMScheduler", 2, {"skip_prk_steps": True}),
    ("DDIMScheduler", 1, {}),
    (
        "DDIMScheduler",
        7,
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ),
]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


def heard(pipe: Any, steps: int) -> dict[float, tuple[int, float, Moment]]:
    """By t: the number of the U-Net call at which it was heard, the timestep of that call, and what is recorded."""
    calls: list[float] = []
    generator = Generator(pipe, GenerationConfig(steps, 3.0, blocks=BLOCKS[1:], branches=("cond",), t=TS))
    found: dict[float, tuple[int, float, Moment]] = {}

    def on_site(site: Any, *_: object) -> None:
        assert site.t not in found
        found[site.t] = (len(calls) - 1, calls[-1], generator.moments[site])

    handle = pipe.unet.register_forward_pre_hook(lambda _, args: calls.append(float(args[1])), prepend=True)
    try:
        generator.sample(["a red house"], [3], on_site, decode=False)
    finally:
        handle.remove()
    assert calls == list(generator.schedule.timesteps)
    return found


def by_hand(name: str, options: dict[str, Any], steps: int) -> list[int]:
    """The number of the first call of every step: Heun and KDPM2 take two a step, PNDM starts with more."""
    if name in ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"):
        return [2 * step for step in range(steps)]
    if name == "PNDMScheduler" and options.get("skip_prk_steps"):
        return [0, *range(2, steps + 1)]
    if name == "PNDMScheduler":
        return [0, 4, 8, *range(12, 12 + steps - 3)]
    return list(range(steps))


def check(pipe: Any, name: str, steps: int, options: dict[str, Any]) -> None:
    first = by_hand(name, options, steps)
    found = heard(pipe, steps)
    assert set(found) == set(TS)
    for t, (number, timestep, moment) in found.items():
        step = step_of(t, steps)
        assert (number, moment) == (first[step], Moment(step, timestep))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_heard_where_it_says_or_refused_by_name(pipe: Any, name: str) -> None:
    try:
        sampler = getattr(diffusers, name).from_config(dict(diffusers.DDIMScheduler(clip_sample=False).config))
    except (TypeError, ImportError):  # it cannot even be made
        assert name in REFUSED
        return
    pipe.scheduler = sampler
    if name in REFUSED:
        with pytest.raises(InputError, match=name) as refusal:
            Generator(pipe, GenerationConfig(6, 3.0, blocks=BLOCKS[1:], branches=("cond",), t=TS))
        stated = "beta_start" in inspect.signature(getattr(diffusers, name).__init__).parameters
        assert ("model.scheduler=ddim" in str(refusal.value)) == stated  # DDIM takes over betas alone
    else:
        check(pipe, name, 6, {})


@pytest.mark.parametrize(("name", "steps", "options"), VARIANTS, ids=lambda value: str(value)[:40])
def test_settings_of_samplers_that_repeat_or_split_timesteps(
    pipe: Any, name: str, steps: int, options: dict[str, Any]
) -> None:
    base = dict(diffusers.DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear").config)
    pipe.scheduler = getattr(diffusers, name).from_config(base, **options)
    check(pipe, name, steps, options)


def test_positions_count_steps_not_calls() -> None:
    two = Schedule((9.0, 6.0, 6.0, 3.0, 3.0), (0, 0, 1, 1, 2))
    assert [two.t(place) for place in range(5)] == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert [two.place(t) for t in (1.0, 0.5, 0.0)] == [0, 2, 4]
    assert two.moment(0.5) == Moment(1, 6.0)
    assert [two.first_step(window) for window in ((0.6, 1.0), (0.2, 0.6), (0.0, 0.2))] == [0, 1, 2]
    assert Schedule.plain([5.0]).t(0) == 1.0


def test_calls_of_one_timestep_are_told_apart_by_their_order(pipe: Any) -> None:
    """DPM++ with Karras' sigmas rounds the timesteps of its last steps to the same whole numbers."""
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True)
    calls: list[Call] = []
    with capture_updates(pipe, BLOCKS[1:], lambda _, call, __: calls.append(call)):
        pipe("a red house", num_inference_steps=100, guidance_scale=1.0, output_type="latent")
    assert [call.step for call in calls] == list(range(100))
    assert len({call.timestep for call in calls}) < 100


def test_noise_that_is_not_the_seeds_own_is_refused() -> None:
    class Careless(diffusers.DDIMScheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            sample, *_ = super().step(*args, **kwargs)
            return (sample + torch.randn(sample.shape),)

    state = torch.get_rng_state()
    with pytest.raises(InputError, match="Careless draws noise that does not belong to a picture's seed"):
        rehearsed(Careless(), 4)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(InputError, match="LCMScheduler cannot draw pictures in 2000 steps"):
        rehearsed(diffusers.LCMScheduler(), 2000)
