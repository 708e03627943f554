"""Loss recovered on a tiny pipeline: autoencoders whose reconstruction is known must give the known errors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.capture import cells, replaced_update
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of, network
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.noise_error import NoiseErrors, _Passes, mean_errors, noise_errors
from gazetteer.diffusion.noised import Noised, by_place
from gazetteer.diffusion.watch import patched
from gazetteer.jobs.sae.recover import as_metrics
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.dits import FAMILIES, tiny_dit
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

D = 32
WITHOUT = {"guidance": 0.0, "true_guidance": 1.0, "branches": ("cond",)}
MID = "mid_block.attentions.0"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_pipeline(), GenerationConfig(steps=4, blocks=BLOCKS, t=(1.0, 0.0)))


def perfect(d: int = D) -> SparseAutoencoder:
    """Features ±e_i, all of them allowed: x̂ = x."""
    sae = SparseAutoencoder(SAEConfig(d, 2 * d, d))
    with torch.no_grad():
        sae.encoder.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        sae.decoder.copy_(sae.encoder)
    return sae


def constant(value: torch.Tensor) -> SparseAutoencoder:
    """No feature ever fires: x̂ = b."""
    sae = SparseAutoencoder(SAEConfig(D, D, 1))
    with torch.no_grad():
        sae.encoder.zero_()
        sae.decoder.copy_(torch.eye(D))
        sae.bias.copy_(value)
    return sae


def test_known_reconstructions_give_known_errors(generator: Generator):
    sites = generator.config.sites
    mean = torch.linspace(-1, 1, D)
    means = dict.fromkeys(sites, mean)
    best = noise_errors(generator, "a red house", 3, {site: perfect() for site in sites}, means)
    none = noise_errors(generator, "a red house", 3, {site: constant(torch.zeros(D)) for site in sites}, {})
    same = noise_errors(generator, "a red house", 3, {site: constant(mean) for site in sites}, means)
    assert set(best) == set(sites)
    for site in sites:
        assert best[site].sae == pytest.approx(best[site].plain, rel=1e-5)
        assert none[site].sae == pytest.approx(none[site].zero, rel=1e-6) == best[site].zero
        assert math.isnan(none[site].mean)
        assert same[site].sae == pytest.approx(same[site].mean, rel=1e-6)
        assert len({best[site].plain, best[site].zero, best[site].mean}) == 3
    # Each site is replaced by itself: alone it gives what it gave among the others.
    one = Site(MID, "cond", 1.0)
    assert noise_errors(generator, "a red house", 3, {one: perfect()}, means)[one] == best[one]


def test_the_plain_error_by_hand(generator: Generator):
    pipe, site, seed = generator.pipe, Site(MID, "cond", 1.0), 5
    timestep = int(generator.moments[site].timestep)
    found = noise_errors(generator, "a dog at night", seed, {site: perfect()}, {})[site]
    clean = pipe(
        prompt="a dog at night", latents=generator.noise(seed), num_inference_steps=4, guidance_scale=7.5,
        output_type="latent",
    ).images  # fmt: skip
    noise, kept = generator.noise(by_place(seed, 1)), pipe.scheduler.alphas_cumprod[timestep]
    noised = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    text = pipe.encode_prompt("a dog at night", "cpu", 1, False)[0]
    with torch.inference_mode():
        predicted = pipe.unet(noised, timestep, encoder_hidden_states=text).sample
    assert found.plain == pytest.approx(float((predicted - noise).square().mean()), rel=1e-4)


def test_a_replacement_is_gone_when_its_context_ends(generator: Generator):
    unet = generator.pipe.unet
    call = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), 10, torch.zeros(1, 8, 16)
    with torch.inference_mode():
        before = unet(*call).sample
        seen: list[torch.Tensor] = []
        with replaced_update(unet, MID, lambda update: seen.append(update) or torch.zeros_like(update)):
            changed = unet(*call).sample
        with pytest.raises(RuntimeError), replaced_update(unet, MID, torch.zeros_like):
            raise RuntimeError
        assert torch.equal(unet(*call).sample, before)
    assert cells(seen[0]).shape == (1, 16, D)
    assert not torch.equal(changed, before)


def test_what_does_not_predict_noise_is_refused(generator: Generator, monkeypatch: pytest.MonkeyPatch):
    scheduler = type(generator.pipe.scheduler).from_config(generator.pipe.scheduler.config, prediction_type="sample")
    monkeypatch.setattr(generator.pipe, "scheduler", scheduler)
    with pytest.raises(InputError, match=r"not sample of DDIMScheduler; set sae.recover=0"):
        noise_errors(generator, "a red house", 3, {Site(MID, "cond", 1.0): perfect()}, {})


def steps_of(made: Generator, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a plain generation, what its sampler is given of the denoiser first, and what it gives last."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def step(usual, *args, **kwargs):
        given = usual(*args, **kwargs)
        seen.append((args[0], given[0]))
        return given

    with patched(made.pipe.scheduler, "step", step):
        made.pipe(
            latents=made.latents([latents]), output_type="latent", **made.arguments(["a red house"])
        )  # fmt: skip
    return seen[0][0], seen[-1][1]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_transformer_by_hand(family: str):
    """At the first step a picture is all noise, so that a generation from this noise begins with what is predicted."""
    pipe = tiny_dit(family)
    *_, block = adapter_of(pipe).blocks(network(pipe))
    inside = family == "flux2"  # its network is told of the guidance, and never runs without the prompt
    branches = ("cond",) if inside else ("cond", "uncond")
    config = GenerationConfig(
        steps=2,
        guidance=4.0,
        true_guidance=4.0 if family == "flux" else 1.0,
        blocks=(block,),
        t=(1.0,),
        branches=branches,
        height=64,
        width=64,
    )
    made, alone = (Generator(pipe, one) for one in (config, config if inside else replace(config, **WITHOUT)))
    width = adapter_of(pipe).find(network(pipe), block).channels
    cond, *uncond = sites = [Site(block, branch, 1.0) for branch in branches]
    found = noise_errors(made, "a red house", 3, {site: perfect(width) for site in sites}, {})
    _, clean = steps_of(made, made.noise(3))
    timestep = int(made.moments[cond].timestep)
    noise = noisy = made.noise(by_place(3, 1))
    flows = type(pipe.scheduler).__name__.startswith("Flow")
    if not flows:  # diffusion leaves a little of the picture
        kept = pipe.scheduler.alphas_cumprod[timestep]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    predicted, _ = steps_of(alone, noisy)
    noise = made.adapter.stepped(pipe, noise)
    error = float((predicted - (noise - clean if flows else noise)).square().mean())
    assert found[cond].plain == pytest.approx(error, rel=1e-4)
    assert all(found[site].plain != found[cond].plain for site in uncond)
    for errors in found.values():
        assert errors.sae == pytest.approx(errors.plain, rel=1e-4) and errors.zero != errors.plain
    with pytest.raises(InputError, match=r"measured on updates and outputs of the image stream; sae.recover=0"):
        noise_errors(made, "a red house", 3, {replace(cond, signal="input"): perfect(width)}, {})


EDM = [
    diffusers.EDMEulerScheduler(), diffusers.EDMEulerScheduler(prediction_type="v_prediction"),
    diffusers.EDMDPMSolverMultistepScheduler(),
    diffusers.EDMDPMSolverMultistepScheduler(prediction_type="v_prediction", sigma_max=20.0),
]  # fmt: skip


@pytest.mark.parametrize("scheduler", EDM, ids=lambda one: f"{type(one).__name__}-{one.config.prediction_type}")
def test_a_denoiser_in_edm_form_that_knows_the_picture_errs_by_nothing(scheduler: Any) -> None:
    """Karras et al. 2022, equation 7: D = c_skip x + c_out F, which a perfect F makes the picture."""
    pipe = tiny_pipeline()
    pipe.scheduler = scheduler
    made = Generator(pipe, GenerationConfig(6, 1.0, blocks=BLOCKS, branches=("cond",), t=(1.0, 0.5, 0.0)))
    passes = _Passes(made, "a red house", 5, [0, 3, 5], ["cond"])
    drawn = [made.noise(5), *passes.noises]  # each place has noise of its own, and none that of the picture
    assert not any(torch.equal(one, other) for place, one in enumerate(drawn) for other in drawn[:place])
    data, sign = scheduler.config.sigma_data, -1.0 if scheduler.config.prediction_type == "v_prediction" else 1.0
    for visit, place in enumerate((0, 3, 5)):
        sigma = float(scheduler.sigmas[place])
        skip = data**2 / (sigma**2 + data**2)
        out = sign * sigma * data / math.sqrt(sigma**2 + data**2)
        noisy = passes.clean + sigma * passes.noises[visit]
        perfect_output = (passes.clean - skip * noisy) / out
        assert passes._error(visit, perfect_output) < 1e-6
        off = passes._error(visit, perfect_output + 0.1 * sigma / out)  # D is off by 0.1 σ, so the noise by 0.1
        assert off == pytest.approx(0.01, rel=1e-2)


def test_the_noise_that_an_edm_denoiser_sees_is_what_its_sampler_walks_along() -> None:
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(5)
    x, noise, output = torch.randn(3, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    state = Noised(scheduler, 2, x, noise)
    seen = state.noise_in(output)
    scheduler.set_begin_index(2)
    scheduler.scale_model_input(state.noisy, scheduler.timesteps[2])
    stepped = scheduler.step(output, scheduler.timesteps[2], state.noisy).prev_sample
    assert torch.allclose((stepped - state.noisy) / (scheduler.sigmas[3] - scheduler.sigmas[2]), seen, atol=1e-4)


def test_means_over_pictures_and_what_they_say():
    errors = mean_errors([NoiseErrors(1.0, 2.0, 5.0, float("nan")), NoiseErrors(1.0, 1.0, 3.0, float("nan"))])
    assert as_metrics(errors) == {
        "noise_error": 1.0, "noise_error_sae": 1.5, "noise_error_zero": 4.0, "noise_error_mean": None,
        "loss_recovered": pytest.approx(2.5 / 3), "loss_recovered_mean": None,
    }  # fmt: skip
    assert as_metrics(NoiseErrors(1.0, 2.0, 0.5, 3.0))["loss_recovered"] is None
    assert as_metrics(NoiseErrors(1.0, 2.0, 0.5, 3.0))["loss_recovered_mean"] == 0.5
