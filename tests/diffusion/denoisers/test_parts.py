"""Parts within blocks of transformers are heard: what they give, and what they are given, against plain hooks."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.diffusion.capture import capture
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.steer import steer
from gazetteer.diffusion.watch import Call
from tests.support.models.dits import tiny_dit

PARTS = {
    "sd3": {"ff": "image", "ff_context": "text", "attn": "both"},
    "flux": {"ff": "image", "ff_context": "text", "attn": "both"},
    "chroma": {"ff": "image", "ff_context": "text", "attn": "both"},
    "flux2_klein": {"ff": "image", "ff_context": "text", "attn": "both"},
    "qwen_image": {"img_mlp": "image", "txt_mlp": "text", "attn": "both"},
    "pixart_sigma": {"ff": "image", "attn1": "image", "attn2": "image"},
    "sana": {"attn1": "image", "attn2": "image"},
    "lumina2": {"feed_forward": "text first", "attn": "text first"},
    "z_image": {"feed_forward": "text last", "attention": "text last"},
    "hunyuan": {"ff": "image", "attn1": "image", "attn2": "image"},
}
LIST = {"lumina2": "layers", "z_image": "layers", "hunyuan": "blocks"}
CASES = [(family, part, kind) for family, parts in PARTS.items() for part, kind in parts.items()]


@cache
def pipeline(family: str) -> Any:
    return tiny_dit(family)


def generation(family: str, block: str, streams: tuple[str, ...] = ("image",)) -> GenerationConfig:
    side = {"lumina2": 128, "hunyuan": 128}.get(family, 32)
    return GenerationConfig(
        height=side, width=side, steps=2, guidance=1.0, blocks=(block,), branches=("cond",), t=(1.0,),
        signals=("output",), streams=streams,
    )  # fmt: skip


def tokens(values: Tensor) -> Tensor:
    return values.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(("family", "part", "kind"), CASES)
def test_a_part_is_heard_as_a_plain_hook_hears_it(family: str, part: str, kind: str) -> None:
    pipe, path = pipeline(family), f"{LIST.get(family, 'transformer_blocks')}.0.{part}"
    streams = {"both": ("image", "text"), "text first": ("image", "text"), "text last": ("image",)}.get(kind, (kind,))
    made = Generator(pipe, generation(family, path, streams))
    plain: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        if kind == "both":
            plain.append(({"image": given, "text": kwargs["encoder_hidden_states"]},
                          {"image": output[0], "text": output[1]}))  # fmt: skip
        else:
            plain.append(({kind.split()[0]: given}, {kind.split()[0]: output}))

    heard: dict[Port, list[Tensor]] = {}
    ports = [Port(path, stream, signal) for stream in streams for signal in ("output", "input")]

    def on_signal(port: Port, call: Call, values: Tensor) -> None:
        heard.setdefault(port, []).append(values)

    handle = pipe.transformer.get_submodule(path).register_forward_hook(hook, with_kwargs=True)
    try:
        with capture(pipe, ports, on_signal):
            pipe(latents=made.latents([made.noise(0)]), output_type="latent", **made.arguments(["a red house"]))
    finally:
        handle.remove()
    assert len(plain) >= 2
    for port in ports:
        for values, sides in zip(heard[port], plain, strict=True):
            side = sides[port.signal == "output"]
            expected = side.get(port.stream, side.get("text"))
            assert expected is not None
            if kind.startswith("text "):
                count = values.shape[2] * values.shape[3]
                at_end = (port.stream == "image") == (kind == "text first")
                expected = expected[:, -count:] if at_end else expected[:, :count]
            assert torch.equal(tokens(values), expected)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("transformer_blocks.1.fff", r"did you mean ff\? accepted there: attn, ff, ff_context; or the whole block"),
        ("transformer_blocks.1.ff.net", "nothing is heard at 'ff.net'"),
        ("single_transformer_blocks.0.attn", "accepted there: nothing; or the whole block"),
        ("transformer_blocks.7.ff", "has no block 'transformer_blocks.7.ff'"),
    ],
)
def test_what_is_no_part_is_named_with_what_is(block: str, says: str) -> None:
    with (
        pytest.raises(InputError, match=says),
        capture(pipeline("flux"), [Port(block, signal="output")], lambda *_: None),
    ):
        pass


@pytest.mark.parametrize(
    ("port", "says"),
    [
        (Port("transformer_blocks.1.ff"), "output minus input means nothing"),
        (Port("transformer_blocks.1.ff", "text", "output"), "has no text stream of its own; accepted: image"),
        (Port("transformer_blocks.1.ff_context", "image", "output"), "has no image stream of its own; accepted: text"),
    ],
)
def test_what_a_part_does_not_give_is_refused(port: Port, says: str) -> None:
    with pytest.raises(InputError, match=says), capture(pipeline("flux"), [port], lambda *_: None):
        pass


@pytest.mark.parametrize("signal", ["output", "input"])
def test_a_part_is_steered_by_what_it_gives_alone(signal: str) -> None:
    pipe, path = pipeline("flux"), "transformer_blocks.1.ff"
    made = Generator(pipe, generation("flux", path))

    def drawn(strength: float) -> Tensor:
        target = Target(path, "cond", 1.0, vector=tuple([1.0] * 32), signal=signal)
        edit = Edit(targets=(target,), window=(0.5, 1.0), strength=strength, unit="absolute")
        with steer(pipe, [edit], guided=False):
            latents = made.latents([made.noise(0)])
            return pipe(latents=latents, output_type="latent", **made.arguments(["a red house"])).images

    if signal == "input":
        with pytest.raises(InputError, match="listened to alone"):
            drawn(2.0)
        return
    plain, calls = drawn(0.0), list[int]()

    def add(_: Any, __: Any, output: Tensor) -> Tensor:
        calls.append(1)
        return output + 2.0 if len(calls) == 1 else output  # in the first of two steps

    handle = pipe.transformer.get_submodule(path).register_forward_hook(add)
    expected = drawn(0.0)
    handle.remove()
    assert not torch.equal(plain, expected) and torch.allclose(drawn(2.0), expected, atol=1e-5)


def test_a_site_of_what_is_given_has_a_name() -> None:
    site = Site("transformer_blocks.1.ff", "cond", 0.5, signal="input")
    assert site.slug == "transformer_blocks.1.ff-input-cond-t0.50" and Site.from_slug(site.slug) == site
