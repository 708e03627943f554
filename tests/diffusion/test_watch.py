"""Compiled networks are edited and heard as plain ones are, and what goes past the hooks is said, not missed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from gazetteer.attribution.objective.trajectory import trajectory
from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.diffusion.attention import capture_attention
from gazetteer.diffusion.capture import capture_updates, replaced_update, updates
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.resume import resumed_at
from gazetteer.diffusion.steer import steer
from gazetteer.diffusion.watch import Call, patched, watched
from tests.diffusion.test_capture import hooks_left
from tests.diffusion.test_transformers import generation
from tests.support.models.dits import flux
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

MID = BLOCKS[1]
SMALL = GenerationConfig(3, 3.0, blocks=[MID])
EDIT = Edit(targets=(Target(MID, vector=tuple(float(i % 3) for i in range(32))),), strength=3.0, window=(0.0, 1.0))


def wrap(pipe: Any) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")


def in_place(pipe: Any) -> None:
    pipe.unet.compile(backend="eager")


def repeated_blocks(pipe: Any) -> None:
    for module in pipe.unet.modules():
        if type(module).__name__ in ("Transformer2DModel", "BasicTransformerBlock"):
            module.compile(backend="eager")


def its_forward(pipe: Any) -> None:
    pipe.unet.forward = torch.compile(pipe.unet.forward, backend="eager")


def draw(pipe: Any) -> torch.Tensor:
    return pipe(
        prompt=["a red house"], latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
        num_inference_steps=3, guidance_scale=3.0, output_type="latent",
    ).images  # fmt: skip


@pytest.fixture(scope="module")
def expected() -> tuple[torch.Tensor, torch.Tensor]:
    """What a plain network draws, without and with the edit."""
    pipe = tiny_pipeline()
    with steer(pipe, [EDIT]):
        edited = draw(pipe)
    return draw(pipe), edited


@pytest.mark.parametrize(
    ("compiled", "warm"), [(wrap, True), (in_place, False), (repeated_blocks, True), (its_forward, False)]
)
def test_compiled_networks_are_edited_and_heard(
    expected: tuple[torch.Tensor, torch.Tensor], compiled: Callable[[Any], None], warm: bool
) -> None:
    plain, edited = expected
    torch._dynamo.reset()
    pipe = tiny_pipeline()
    compiled(pipe)
    if warm:
        torch.testing.assert_close(draw(pipe), plain)
    with steer(pipe, [EDIT]):
        torch.testing.assert_close(draw(pipe), edited)
    steps: list[int] = []
    layers: list[str] = []
    with (
        capture_updates(pipe, [MID], lambda _, call, __: steps.append(call.step)),
        capture_attention(pipe, lambda layer, *_: layers.append(layer)),
    ):
        draw(pipe)
    assert steps == [0, 1, 2] and len(layers) == 3 * len(set(layers)) > 0
    sites = []
    made = Generator(pipe, GenerationConfig(3, 3.0, blocks=BLOCKS))
    made.sample(["a red house"], [1], lambda site, *_: sites.append(site), decode=False)
    assert sorted(sites) == made.config.sites
    latents, text = torch.zeros(1, 4, 8, 8), torch.zeros(1, 5, 16)
    with torch.inference_mode():
        usual = pipe.unet(latents, 5, encoder_hidden_states=text).sample
        with replaced_update(pipe.unet, MID, torch.zeros_like):
            replaced = pipe.unet(latents, 5, encoder_hidden_states=text).sample
    assert not torch.allclose(usual, replaced)
    # nothing stays behind, and compiled code is used again
    torch.testing.assert_close(draw(pipe), plain)
    assert hooks_left(getattr(pipe.unet, "_orig_mod", pipe.unet)) == 0


@pytest.mark.parametrize(
    "opened",
    [
        lambda unet: steer(unet, [EDIT]), lambda unet: capture_updates(unet, [MID], lambda *_: None),
        lambda unet: capture_attention(unet, lambda *_: None), lambda unet: nullcontext(Generator(unet, SMALL)),
        lambda unet: nullcontext(trajectory(unet, ["a dog"], [1])),
    ],
)  # fmt: skip
def test_a_network_in_place_of_its_pipeline_is_refused(opened: Callable[[Any], AbstractContextManager[Any]]) -> None:
    unet, sentence = tiny_pipeline().unet, "A pipeline is needed, which has a sampler too, not UNet2DConditionModel"
    with pytest.raises(InputError, match=sentence), opened(unet):
        pass


def traced(pipe: Any) -> None:
    """What runs in the U-Net's place, as an exported network does: its modules' hooks are never called."""
    network, own = pipe.unet, tiny_pipeline().unet
    network.forward = own.forward


def replaced_call(pipe: Any) -> None:
    """A pipeline that holds another network than the one it shows."""
    unet, own = pipe.unet, tiny_pipeline().unet

    class Wrapper(torch.nn.Module):
        config, dtype, device, _orig_mod = own.config, own.dtype, own.device, unet

        def parameters(self, recurse: bool = True) -> Any:
            return own.parameters(recurse)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return own(*args, **kwargs)

    pipe.unet = Wrapper()


@pytest.mark.parametrize(
    ("hide", "sentence"), [(traced, f"{MID} was not heard"), (replaced_call, "its U-Net was not heard")]
)
def test_what_goes_past_the_hooks_is_an_error(hide: Callable[[Any], None], sentence: str) -> None:
    pipe = tiny_pipeline()
    hide(pipe)
    with pytest.raises(InputError, match=sentence), steer(pipe, [EDIT]):
        draw(pipe)
    with pytest.raises(InputError, match=sentence), capture_updates(pipe, [MID], lambda *_: None):
        draw(pipe)
    with pytest.raises(InputError, match="was not heard"), capture_attention(pipe, lambda *_: None):
        draw(pipe)
    made = Generator(pipe, GenerationConfig(3, 3.0, blocks=[MID]))
    with pytest.raises(InputError, match=sentence):
        made.sample(["a red house"], [1], lambda *_: None, decode=False)
    draw(pipe)


def test_a_block_that_a_cache_skips_is_an_error() -> None:
    pipe = tiny_pipeline()
    cached: list[Any] = []
    latents, text = torch.zeros(1, 4, 8, 8), torch.zeros(1, 5, 16)
    parent = pipe.unet.mid_block
    whole = parent.forward
    parent.forward = lambda hidden, *a, **k: whole(hidden, *a, **k) if not cached else cached[0]
    with torch.inference_mode(), updates(pipe.unet, [MID], lambda *_: None):
        pipe.unet(latents, 5, encoder_hidden_states=text)
        cached.append(torch.zeros(1, 32, 4, 4))
        with pytest.raises(InputError, match=f"{MID} was not heard"):
            pipe.unet(latents, 5, encoder_hidden_states=text)


def test_patches_may_be_nested_and_what_stood_there_comes_back() -> None:
    class Owner:
        def name(self, x: int) -> int:
            return x

    owner = Owner()
    with patched(owner, "name", lambda usual, x: usual(x) + 1):
        with patched(owner, "name", lambda usual, x: usual(x) * 10):
            assert owner.name(2) == 30
        assert owner.name(2) == 3
    assert owner.name(2) == 2 and "name" not in vars(owner)


@pytest.mark.parametrize(("first", "stride"), [(80, 1), (0, 2)])
def test_steps_that_half_precision_does_not_tell_apart_are_known_in_a_part_of_them(first: int, stride: int) -> None:
    """FLUX in bfloat16, as it is held, is told its time in bfloat16, and 200 steps lie closer than that."""
    made = Generator(flux().to(torch.bfloat16), generation("flux", steps=200, t=(1.0,)))
    places: list[int] = []

    def on_call(call: Call, *_: Any) -> None:
        places.append(call.place)

    with resumed_at(made.pipe, first, stride), watched(made.pipe, made.schedule, on_call=on_call):
        made.pipe(latents=made.latents([made.noise(1)]), output_type="latent", **made.arguments(["a red house"]))
    assert places == list(range(first, 200, stride))
