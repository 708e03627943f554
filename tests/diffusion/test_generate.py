"""Pictures and codes belong to (prompt, seed) alone: not to the batch, its order, or who else was in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.tables.codes import Moment, SparseMap, codes_table
from gazetteer.data.tables.schemas import CODES
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.model.maps import encode_map
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

PROMPTS, SEEDS = ["a red house", "a dog at night", "two boats on the sea"], [5, 6, 2**40]


def generator(**settings: object) -> Generator:
    options = {"steps": 5, "guidance": 3.0, "blocks": BLOCKS, "t": (1.0, 0.5, 0.0)} | settings
    return Generator(tiny_pipeline(), GenerationConfig(**options))  # type: ignore[arg-type]


def saes(made: Generator) -> dict[Site, SparseAutoencoder]:
    return {site: SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1) for site in made.config.sites}


def same(a: dict[Site, SparseMap], b: dict[Site, SparseMap]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[s].feature, b[s].feature) and np.array_equal(a[s].value, b[s].value) for s in a
    )


def test_a_picture_is_the_same_in_any_batch_and_order() -> None:
    made = generator()
    together = made.pictures(PROMPTS, SEEDS, saes(made))
    for place in (2, 0, 1):
        (alone,) = made.pictures([PROMPTS[place]], [SEEDS[place]], saes(made))
        assert np.array_equal(alone.image, together[place].image)
        assert same(alone.codes, together[place].codes)
    assert not np.array_equal(together[0].image, together[1].image)


def test_batched_calls_agree_with_single_ones_up_to_rounding() -> None:
    seen: dict[bool, list[torch.Tensor]] = {}
    for exact in (True, False):
        made, kept = generator(exact=exact), []
        groups = [(PROMPTS, SEEDS)] if not exact else [([p], [s]) for p, s in zip(PROMPTS, SEEDS, strict=True)]
        for prompts, seeds in groups:
            made.sample(prompts, seeds, lambda site, x, h, w, kept=kept: kept.append((site, x)), decode=False)
        seen[exact] = [torch.cat([x for s, x in kept if s == site]) for site in made.config.sites]
    for single, batched in zip(seen[True], seen[False], strict=True):
        torch.testing.assert_close(single, batched, rtol=1e-4, atol=1e-5)


def test_every_site_is_captured_once_at_its_own_step() -> None:
    made = generator(steps=50)
    seen: list[Site] = []
    made.sample(PROMPTS[:1], SEEDS[:1], lambda site, x, h, w: seen.append(site), decode=False)
    assert sorted(seen) == made.config.sites
    assert len(seen) == 2 * 2 * 3
    steps = {site.t: moment.step for site, moment in made.moments.items()}
    assert steps == {1.0: 0, 0.5: 25, 0.0: 49}
    timesteps = [int(t) for t in made.pipe.scheduler.timesteps]
    assert all(moment.timestep == timesteps[moment.step] for moment in made.moments.values())


def test_samplers_that_call_twice_at_a_timestep_are_heard_once() -> None:
    """PNDM is Stable Diffusion's own: its second timestep comes twice."""
    pipe = tiny_pipeline()
    pipe.scheduler = PNDMScheduler(skip_prk_steps=True)
    made = Generator(pipe, GenerationConfig(steps=4, blocks=BLOCKS, branches=("cond",), t=(1.0, 0.75, 0.0)))
    timesteps = [int(t) for t in pipe.scheduler.timesteps]
    assert timesteps[1] == timesteps[2] == made.moments[Site(BLOCKS[0], "cond", 0.75)].timestep
    seen: list[Site] = []
    made.sample(PROMPTS[:1], SEEDS[:1], lambda site, x, h, w: seen.append(site), decode=False)
    assert sorted(seen) == made.config.sites


def test_noise_is_drawn_from_the_seed_alone() -> None:
    made = generator()
    torch.manual_seed(99)
    first = made.noise(7)
    torch.manual_seed(100)
    torch.randn(10)
    assert torch.equal(first, made.noise(7))
    assert not torch.equal(first, made.noise(8))


def test_without_guidance_there_is_no_uncond() -> None:
    with pytest.raises(InputError, match="uncond"):
        GenerationConfig(guidance=1.0)
    made = generator(guidance=1.0, branches=("cond",))
    (picture,) = made.pictures(PROMPTS[:1], SEEDS[:1], saes(made))
    assert {site.branch for site in picture.codes} == {"cond"}


@pytest.mark.parametrize("name", ["blocks", "streams", "signals", "branches"])
def test_a_place_is_named_once(name: str) -> None:
    value = getattr(GenerationConfig(), name)[0]
    with pytest.raises(InputError, match=rf"generation\.{name} names {value} twice"):
        GenerationConfig(**{name: (value, value)})


@pytest.mark.parametrize("branches", [("uncond",), ("cond", "uncond")])
def test_the_uncond_branch_holds_no_words(branches: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"uncond branch holds no words.*generation.branches=\[cond\]"):
        GenerationConfig(streams=("image", "text"), branches=branches)


def test_pictures_need_not_be_square() -> None:
    made = generator(height=16, width=32)
    (picture,) = made.pictures(PROMPTS[:1], SEEDS[:1], saes(made))
    assert picture.image.shape == (16, 32, 3)
    assert {(code.height, code.width) for code in picture.codes.values()} == {(4, 8)}


def test_encode_map_rounds_once_to_what_is_stored() -> None:
    sae = SparseAutoencoder(SAEConfig(32, 64, 4)).initialise(1)
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    code = encode_map(sae, x, 2, 3)
    assert (code.height, code.width, code.k) == (2, 3, 4)
    assert code.value.dtype == np.float16
    exact = sae.requires_grad_(False).encode(x)
    assert np.array_equal(code.feature.reshape(6, 4), exact.indices.numpy())
    assert np.array_equal(code.value.reshape(6, 4), exact.values.to(torch.float16).numpy())
    with pytest.raises(ValueError, match="not finite"):
        encode_map(sae, x * torch.nan, 2, 3)
    with pytest.raises(ValueError, match=r"more strongly than tables hold \(65,504, in 16 bits\)"):
        encode_map(sae, x * 1e6, 2, 3)


def test_codes_become_rows_of_the_schema() -> None:
    site = Site(BLOCKS[0], "cond", 0.5)
    code = SparseMap(1, 2, 1, np.array([3, 4], np.uint32), np.array([0.5, 0.0], np.float16))
    table = codes_table(["a", "b"], [{site: code}, {site: code}], {site: Moment(2, 501)})
    assert table.schema.equals(CODES)
    assert table["image_id"].to_pylist() == ["a", "b"]
    assert table["feature"].to_pylist() == [[3, 4]] * 2
    assert table["value"].to_pylist() == [[0.5, 0.0]] * 2
    assert table["timestep"].to_pylist() == [501, 501]
