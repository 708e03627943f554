"""An edit changes exactly what it says: where, when, in which half and picture, by how much; and leaves no trace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import STAGES, UNITS, Edit, Target
from gazetteer.data.inputs.regions import QUADRANTS, Region
from gazetteer.diffusion.capture import cells, updates
from gazetteer.diffusion.schedule import Schedule
from gazetteer.diffusion.steer import steer
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.diffusion.test_capture import hooks_left
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

MID = BLOCKS[1]
SITE = Site(MID, "cond", 0.5)
TARGET = Target(MID, t=0.5, features=(3, 9), scales=(0.5, 2.0))
VECTOR = Target(MID, vector=tuple(float(i % 5 - 2) for i in range(32)))
ALWAYS = (0.0, 1.0)


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def saes() -> dict[Site, SparseAutoencoder]:
    return {SITE: SparseAutoencoder(SAEConfig(32, 64, 40)).initialise(1).requires_grad_(False)}


def draw(pipe, edits: Sequence[Edit], saes=None, images: int = 2, guidance: float = 3.0, steps: int = 5, side: int = 0):
    """Latents [images, 4, h, w] and the mid block's edited outputs by timestep."""
    size = {"height": side, "width": 2 * side} if side else {}
    with steer(pipe, edits, saes):
        return pipe(
            prompt=["a red house", "a dog at night", "the sea"][:images],
            latents=torch.randn(
                images, 4, side // 2 or 8, side or 8, generator=torch.Generator().manual_seed(1)
            ),
            num_inference_steps=steps, guidance_scale=guidance, output_type="latent", **size,
        ).images  # fmt: skip


class Halves:
    """A pipeline whose U-Net is called by hand, guided, at one timestep: what a block wrote, before and after."""

    def __init__(self, pipe, edits: Sequence[Edit], saes=None, images: int = 2, timestep: int = 500) -> None:
        pipe.scheduler.set_timesteps(5)
        steps = Schedule.plain([900, 700, 500, 300, 100])
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2 * images, 4, 8, 8, generator=generator)
        text = torch.randn(2 * images, 5, 16, generator=generator)
        seen: list[torch.Tensor] = []
        with updates(pipe.unet, [MID], lambda _, update: seen.append(cells(update))):
            pipe.unet(x, timestep, encoder_hidden_states=text)
        with (
            steer(pipe, edits, saes, schedule=steps, guided=True),
            updates(pipe.unet, [MID], lambda _, update: seen.append(cells(update))),
        ):
            pipe.unet(x, timestep, encoder_hidden_states=text)
        self.update, self.images = seen[0], images
        change = seen[1] - seen[0]
        self.uncond, self.cond = change[:images], change[images:]


def inside(name: str) -> torch.Tensor:
    return torch.from_numpy(Region(box=QUADRANTS[name]).grid(4, 4).reshape(-1))


def test_no_edit_and_strength_zero_are_bit_identical(pipe, saes) -> None:
    plain = draw(pipe, [])
    for unit in UNITS:
        edit = Edit(targets=(TARGET,), strength=0.0, unit=unit, region=Region(box=QUADRANTS["top left"]))
        assert torch.equal(draw(pipe, [edit], saes), plain)
    assert not torch.equal(draw(pipe, [Edit(targets=(VECTOR,))]), plain)


def test_units_mean_what_they_say(pipe, saes) -> None:
    """A global edit adds β · amount · direction to every cell of the conditional half, computed here by hand."""
    sae = saes[SITE]
    summed = 0.5 * sae.decoder[3] + 2.0 * sae.decoder[9]
    x = Halves(pipe, []).update[2:]
    codes = sae.encode(x.flatten(0, 1))
    norms = codes.values.norm(dim=1).unflatten(0, (2, 16))
    dense = torch.zeros(32, 64).scatter_add_(1, codes.indices, codes.values).unflatten(0, (2, 16))
    expected = {
        "absolute": torch.ones(2, 16)[..., None] * summed,
        "code_norm": norms[..., None] * summed,
        "code_norm_share": (norms / norms.sum(1, keepdim=True))[..., None] * summed,
        "update_norm": x.norm(dim=2)[..., None] * summed / summed.norm(),
        "feature_p99": torch.ones(2, 16)[..., None] * summed,
        "code": dense[..., 3:4] * sae.decoder[3] + dense[..., 9:10] * sae.decoder[9],
    }
    assert expected["code"].any(), "the features must fire somewhere for this to test anything"
    assert set(expected) == set(UNITS)
    for unit, change in expected.items():
        made = Halves(pipe, [Edit(targets=(TARGET,), strength=1.5, unit=unit, window=ALWAYS)], saes)
        torch.testing.assert_close(made.cond, 1.5 * change, rtol=1e-4, atol=1e-5)
        assert torch.equal(made.uncond, torch.zeros_like(made.uncond))


def test_features_count_alike_where_the_direction_is_all_that_counts(pipe, saes) -> None:
    long = SparseAutoencoder(SAEConfig(32, 64, 40)).initialise(1).requires_grad_(False)
    long.decoder[9] *= 7.0
    for target, alike in ((Target(MID, t=0.5, features=(3, 9)), True), (TARGET, False)):  # scales weigh what is there
        edit = Edit(targets=(target,), window=ALWAYS)
        made, other = (Halves(pipe, [edit], {SITE: sae}).cond for sae in (saes[SITE], long))
        assert torch.allclose(made, other, rtol=1e-4, atol=1e-5) is alike


def test_a_spatial_edit_adds_inside_and_removes_the_features_outside(pipe, saes) -> None:
    edit = Edit(targets=(TARGET,), unit="absolute", window=ALWAYS, region=Region(box=QUADRANTS["bottom left"]))
    made, sae = Halves(pipe, [edit], saes), saes[SITE]
    codes = sae.encode(made.update[2:].flatten(0, 1))
    literal = torch.zeros(32, 32)
    for cell in range(32):
        for value, feature in zip(codes.values[cell], codes.indices[cell], strict=True):
            if int(feature) in (3, 9) and value > 0:
                literal[cell] -= value * sae.decoder[int(feature)]
    expected = literal.unflatten(0, (2, 16))
    assert expected.any(), "the features must fire somewhere for this to test anything"
    expected[:, inside("bottom left")] = 0.5 * sae.decoder[3] + 2.0 * sae.decoder[9]
    torch.testing.assert_close(made.cond, expected, rtol=1e-4, atol=1e-5)
    taken = Halves(pipe, [Edit(**{**vars(edit), "outside": "subtract"})], saes)
    added = (0.5 * sae.decoder[3] + 2.0 * sae.decoder[9]).expand(2, 16, 32)
    signs = torch.where(inside("bottom left"), 1.0, -0.5)[:, None]
    torch.testing.assert_close(taken.cond, added * signs, rtol=1e-4, atol=1e-5)
    kept = Halves(pipe, [Edit(**{**vars(edit), "outside": "keep"})], saes)
    assert torch.equal(kept.cond[:, ~inside("bottom left")], torch.zeros(2, 12, 32))


def test_an_update_is_encoded_once_however_many_edits_read_it(pipe, saes, monkeypatch) -> None:
    seen: list[int] = []
    encode = saes[SITE].encode
    monkeypatch.setattr(saes[SITE], "encode", lambda x: seen.append(len(x)) or encode(x))
    region = Region(box=QUADRANTS["top left"])
    edits = [Edit(targets=(TARGET,), images=(i,), region=region, window=ALWAYS, unit=u) for i in (0, 1) for u in UNITS]
    Halves(pipe, edits, saes)
    assert seen == [2 * 16]  # two pictures of 4 x 4 cells


def test_edits_compose_in_any_order_and_do_not_remove_each_other(pipe, saes) -> None:
    def at(name: str, **more: object) -> Edit:
        return Edit(targets=(TARGET,), unit="absolute", window=ALWAYS, region=Region(box=QUADRANTS[name]), **more)

    two = [at("top left"), at("bottom right", strength=2.0)]
    made, back = Halves(pipe, two, saes), Halves(pipe, two[::-1], saes)
    torch.testing.assert_close(made.cond, back.cond)
    summed = 0.5 * saes[SITE].decoder[3] + 2.0 * saes[SITE].decoder[9]
    torch.testing.assert_close(made.cond[:, inside("top left")], summed.expand(2, 4, 32), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.cond[:, inside("bottom right")], 2 * summed.expand(2, 4, 32), atol=1e-5, rtol=1e-4)
    # Outside of both, the features go once, not twice.
    once = Halves(pipe, two[:1], saes)
    torch.testing.assert_close(made.cond[:, inside("top right")], once.cond[:, inside("top right")])
    mixed = Halves(pipe, [at("top left"), at("top left", branch="both")], saes)
    torch.testing.assert_close(mixed.cond[:, inside("top right")], once.cond[:, inside("top right")])


def test_branches(pipe) -> None:
    change = {b: Halves(pipe, [Edit(targets=(VECTOR,), branch=b, window=ALWAYS)]) for b in ("cond", "uncond", "both")}
    assert not change["cond"].uncond.any() and not change["uncond"].cond.any()
    assert torch.equal(change["both"].cond, change["cond"].cond)
    torch.testing.assert_close(change["both"].uncond, -change["cond"].cond, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="without guidance"):
        draw(pipe, [Edit(targets=(VECTOR,), branch="uncond")], guidance=1.0)


def test_edits_of_single_pictures_leave_their_neighbours_bit_identical(pipe, saes) -> None:
    plain = draw(pipe, [], images=3)
    left = Edit(targets=(TARGET,), images=(0,), region=Region(box=QUADRANTS["top left"]), window=ALWAYS)
    other = Edit(targets=(VECTOR,), images=(2,), branch="both", window=ALWAYS)
    made = draw(pipe, [left, other], saes, images=3)
    assert torch.equal(made[1], plain[1])
    assert torch.equal(made[0], draw(pipe, [left], saes, images=3)[0])
    assert torch.equal(made[2], draw(pipe, [other], saes, images=3)[2])
    assert not torch.equal(made[0], plain[0]) and not torch.equal(made[2], plain[2])
    with pytest.raises(InputError, match="picture 2"):
        draw(pipe, [other], images=2)


def test_an_edit_acts_in_its_window_only(pipe) -> None:
    """50 steps are cut into 20, 20 and 10, as in the paper; every step belongs to exactly one stage."""
    for steps, counts in ((50, [20, 20, 10]), (1, [1, 0, 0])):
        pipe.scheduler.set_timesteps(steps)
        schedule = Schedule.of(pipe.scheduler)
        ts = [schedule.t(place) for place in range(steps)]
        stages = [[Edit(targets=(VECTOR,), window=w).active(t) for t in ts] for w in STAGES.values()]
        assert [sum(one) for one in stages] == counts
        assert (np.array(stages).sum(axis=0) == 1).all()
    quiet = Halves(pipe, [Edit(targets=(VECTOR,), window=STAGES["early"])], timestep=300)
    assert not quiet.cond.any()
    with pytest.raises(InputError, match="schedule"):
        Halves(pipe, [Edit(targets=(VECTOR,))], timestep=12)


@pytest.mark.parametrize("guidance", [1.0, 3.0], ids=["alone", "guided"])
def test_any_latent_shape_with_and_without_guidance(pipe, saes, guidance: float) -> None:
    edit = Edit(targets=(TARGET,), branch="both", region=Region(box=(0.0, 0.0, 0.3, 1.0)))
    made = draw(pipe, [edit], saes, guidance=guidance, side=16)
    assert made.shape == (2, 4, 8, 16)
    assert not torch.equal(made, draw(pipe, [], guidance=guidance, side=16))


def test_a_pipeline_that_stacks_three_inputs_a_picture_is_refused(pipe) -> None:
    from diffusers import StableDiffusionPAGPipeline

    perturbed = StableDiffusionPAGPipeline(**pipe.components, requires_safety_checker=False, pag_applied_layers="mid")
    perturbed.set_progress_bar_config(disable=True)

    def drawn(edit: Edit, scale: float, guidance: float = 3.0, images: int = 2) -> torch.Tensor:
        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))[:images]
        with steer(perturbed, [edit]):
            return perturbed(
                prompt=["a red house", "a dog at night"][:images], latents=noise, num_inference_steps=5,
                guidance_scale=guidance, pag_scale=scale, output_type="latent",
            ).images  # fmt: skip

    edit = Edit(targets=(VECTOR,))
    assert torch.equal(drawn(edit, 0.0), draw(pipe, [edit]))
    for images, guidance, stacked, kind in ((2, 3.0, 6, "uncond"), (1, 3.0, 3, "uncond"), (1, 1.0, 2, "give one of")):
        with pytest.raises(InputError, match=f"U-Net {stacked} inputs for {images} pictures.*{kind}"):
            drawn(edit, 2.0, guidance, images)
    assert "step" not in vars(pipe.scheduler)
    assert torch.isfinite(drawn(Edit(targets=(VECTOR,), strength=0.0), 2.0)).all()


def test_hooks_go_even_after_exceptions_and_complaints_are_sentences(pipe, saes, tmp_path) -> None:
    before = hooks_left(pipe.unet)

    def explode(_: object, step: int, timestep: int, kept: dict) -> dict:
        assert hooks_left(pipe.unet) == before + 4
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), steer(pipe, [Edit(targets=(TARGET,))], saes):
        pipe("a red house", num_inference_steps=2, callback_on_step_end=explode, output_type="latent")
    wrong = {
        "no targets": ([Edit(concept="dog")], saes),
        "need the autoencoders": ([Edit(targets=(TARGET,))], None),
        "no autoencoder for": ([Edit(targets=(Target(MID, t=1.0, features=(1,)),))], saes),
        "there is no 64": ([Edit(targets=(Target(MID, features=(64,)),))], saes),
        "no block 'nothing'": ([Edit(targets=(Target("nothing", features=(1,)),))], saes),
        "has 2 numbers": ([Edit(targets=(Target(MID, vector=(1.0, 2.0)),))], saes),
    }
    for sentence, (edits, given) in wrong.items():
        with pytest.raises(InputError, match=sentence), steer(pipe, edits, given):
            pass
    assert hooks_left(pipe.unet) == before and "step" not in vars(pipe.scheduler)
    saes[SITE].save_pretrained(tmp_path / SITE.slug, {"site": {"block": MID, "branch": "cond", "t": 0.5}})
    edit = Edit(targets=(TARGET,))
    assert torch.equal(draw(pipe, [edit], tmp_path), draw(pipe, [edit], saes))


ODD = [({"normalise": "unit"}, "normalises each vector"), ({"transcoder": True}, "is a transcoder")]


@pytest.mark.parametrize(("option", "says"), ODD)
def test_concept_vectors_without_a_length_here_are_refused(pipe, option: dict, says: str) -> None:
    odd = SparseAutoencoder(SAEConfig(32, 64, 40, **option)).initialise(1).requires_grad_(False)
    with pytest.raises(InputError, match=says), steer(pipe, [Edit(targets=(TARGET,))], {SITE: odd}):
        pass
