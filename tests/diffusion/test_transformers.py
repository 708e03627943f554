"""Transformers are heard as they are: against plain hooks that know each family's blocks by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Port, Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.data.inputs.regions import Region
from gazetteer.diffusion.capture import capture
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of, adapter_of_index, network, require_unet
from gazetteer.diffusion.edit_sampler import EditSampler, Start
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.steer import steer
from gazetteer.diffusion.watch import Call
from tests.support.models.dits import FAMILIES, tiny_dit
from tests.support.models.plain_hooks import image_tokens

TWO_CALLS = {"flux", "chroma", "flux2_klein", "qwen_image", "lumina2"}
STILL = {"flux", "flux2"}
"""Never run without the prompt."""
ROWS, COLUMNS = 8, 16
"""The grid of every block here; wider than high, so that the two cannot be mistaken for one another."""
LAST = {
    "sd3": "transformer_blocks.0", "flux": "single_transformer_blocks.0", "chroma": "single_transformer_blocks.0",
    "flux2": "single_transformer_blocks.0", "flux2_klein": "single_transformer_blocks.0",
    "qwen_image": "transformer_blocks.1", "pixart_sigma": "transformer_blocks.1", "sana": "transformer_blocks.1",
    "lumina2": "layers.1", "z_image": "layers.1", "hunyuan": "blocks.3",
}  # fmt: skip
WORDS = {"streams": ("text",), "branches": ("cond",)}
PROMPTS = ["a red house", "two boats on the sea"]


@cache
def pipeline(family: str) -> Any:
    return tiny_dit(family)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def generation(family: str, **more: Any) -> GenerationConfig:
    px = {"lumina2": 16, "hunyuan": 16, "sana": 4}.get(family, 4)
    if family == "sana":
        more = {"height": 32, "width": 64, **more}
    branches = ("cond",) if family in STILL else ("cond", "uncond")
    return GenerationConfig(
        **{"height": ROWS * px, "width": COLUMNS * px, "steps": 2, "guidance": 3.0, "blocks": (LAST[family],),
           "branches": branches, "t": (1.0, 0.0), **more}
    )  # fmt: skip


def grid(family: str) -> tuple[int, int]:
    return (16, 32) if family == "sana" else (ROWS, COLUMNS)


def plain(
    family: str, words: list[int], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> tuple[Tensor, Tensor]:
    """Image tokens [batch, cells, channels] before and after the block of LAST; words: see `image_tokens`."""
    return image_tokens(family, grid(family)[0] * grid(family)[1], words, args, kwargs, output)


def listening(pipe: Any, family: str, heard: list[tuple[Tensor, Tensor]]) -> Any:
    words: list[int] = []

    def begin(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        words[:] = kwargs["encoder_attention_mask"].sum(dim=1).tolist() if family == "lumina2" else []

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        heard.append(tuple(one.clone() for one in plain(family, words, args, kwargs, output)))  # type: ignore[arg-type]

    handles = ExitStack()
    handles.callback(pipe.transformer.register_forward_pre_hook(begin, with_kwargs=True).remove)
    block = pipe.transformer.get_submodule(LAST[family])
    handles.callback(block.register_forward_hook(hook, with_kwargs=True).remove)
    return handles


def branches(family: str, heard: list[tuple[Tensor, Tensor]], images: int) -> Iterator[tuple[int, str, Tensor, Tensor]]:
    """(step, branch, before, after) of what a plain hook heard in two steps."""
    calls = 2 if family in TWO_CALLS - STILL else 1
    for number, (before, after) in enumerate(heard):
        if calls == 2 or family in STILL:
            yield number // calls, ("cond", "uncond")[number % calls], before, after
            continue
        order = ("cond", "uncond") if family == "z_image" else ("uncond", "cond")
        for place, branch in enumerate(order):
            part = slice(place * images, (place + 1) * images)
            yield number, branch, before[part], after[part]


def test_what_is_captured_is_what_a_plain_hook_sees(family: str) -> None:
    pipe = pipeline(family)
    made = Generator(pipe, generation(family, signals=("update", "output")))
    seen: dict[Site, Tensor] = {}

    def on_site(site: Site, x: Tensor, height: int, width: int) -> None:
        assert (height, width) == grid(family)
        seen[site] = x

    heard: list[tuple[Tensor, Tensor]] = []
    handle = listening(pipe, family, heard)
    try:
        pictures = made.sample(PROMPTS, [1, 2], on_site)
    finally:
        handle.close()
    assert pictures is not None and pictures.shape[:1] == (2,) and pictures.shape[2] == 2 * pictures.shape[1]
    expected = {}
    for step, branch, before, after in branches(family, heard, 2):
        expected[Site(LAST[family], branch, 1.0 - step)] = after - before
        expected[Site(LAST[family], branch, 1.0 - step, signal="output")] = after
    assert seen.keys() == expected.keys() and len(seen) == (4 if family in STILL else 8)
    for site, values in expected.items():
        assert torch.equal(seen[site], values.float()), site.slug
    assert len({round(float(values.double().abs().sum()), 6) for values in seen.values()}) == len(seen)


def test_steering_changes_the_tokens_of_the_region_and_nothing_where_strength_is_zero(family: str) -> None:
    pipe, config = pipeline(family), generation(family)
    made = Generator(pipe, config)
    width = adapter_of(pipe).find(network(pipe), LAST[family]).channels
    direction = torch.randn(width, generator=torch.Generator().manual_seed(0))
    direction = direction / direction.norm()
    target = Target(LAST[family], vector=tuple(map(float, direction)))

    def drawn(*edits: Edit, alone: bool = False) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        heard: list[tuple[Tensor, Tensor]] = []
        guided = made.adapter.stacked(config)
        with steer(pipe, [] if alone else edits, guided=guided):
            handle = listening(pipe, family, heard)
            latents = made.latents([made.noise(5)])
            picture = pipe(latents=latents, output_type="pt", **made.arguments(PROMPTS[:1])).images
            handle.close()
        return picture, heard

    edit = {"targets": (target,), "window": (0.5, 1.0), "unit": "absolute", "region": Region(box=(0.0, 0.0, 0.5, 1.0))}
    plainly, before = drawn(alone=True)
    same, _ = drawn(Edit(strength=0.0, **edit))  # type: ignore[arg-type]
    steered, after = drawn(Edit(strength=4.0, outside="keep", **edit))  # type: ignore[arg-type]
    assert torch.equal(plainly, same) and not torch.equal(plainly, steered)
    rows, columns = grid(family)
    inside = torch.zeros(rows, columns, dtype=torch.bool)
    inside[:, : columns // 2] = True
    first = {branch: a for step, branch, _, a in branches(family, before, 1) if step == 0}
    for step, branch, _, state in branches(family, after, 1):
        if step == 0:
            change = (state - first[branch])[0]
            wanted = 4.0 * direction * inside.flatten()[:, None] if branch == "cond" else torch.zeros_like(change)
            torch.testing.assert_close(change, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["chroma", "sd3", "z_image", "qwen_image"])
def test_an_edit_of_both_branches_is_taken_from_the_other_however_they_are_called(family: str) -> None:
    pipe, config = pipeline(family), generation(family)
    made = Generator(pipe, config)
    width = adapter_of(pipe).find(network(pipe), LAST[family]).channels
    target = Target(LAST[family], vector=(1.0, *[0.0] * (width - 1)))
    edit = Edit(targets=(target,), window=(0.5, 1.0), unit="absolute", strength=2.0, branch="both")
    states: list[dict[str, Tensor]] = []
    for edits in ([], [edit]):
        heard: list[tuple[Tensor, Tensor]] = []
        with steer(pipe, edits, guided=made.adapter.stacked(config)):
            handle = listening(pipe, family, heard)
            pipe(latents=made.latents([made.noise(5)]), output_type="latent", **made.arguments(PROMPTS[:1]))
            handle.close()
        states.append({branch: after for step, branch, _, after in branches(family, heard, 1) if step == 0})
    change = {branch: (states[1][branch] - states[0][branch])[0] for branch in ("cond", "uncond")}
    assert float((change["cond"][:, 0] - 2.0).abs().max()) < 1e-5 and float(change["cond"][:, 1:].abs().max()) == 0.0
    assert torch.allclose(change["uncond"], -change["cond"], atol=1e-5)


def test_the_text_stream_is_heard_word_by_word() -> None:
    pipe = pipeline("qwen_image")
    seen: list[tuple[str, Tensor]] = []

    def on_signal(port: Port, call: Call, values: Tensor) -> None:
        seen.append((port.stream, values))

    made = Generator(pipe, generation("qwen_image"))
    ports = [Port(LAST["qwen_image"], stream) for stream in ("text", "image")]
    with capture(pipe, ports, on_signal, lambda call: call.step == 0 and call.branches == ("cond",)):
        pipe(latents=made.latents([made.noise(1)]), output_type="latent", **made.arguments(PROMPTS[:1]))
    (text, words), (image, cells) = seen
    assert (text, image) == ("text", "image") and cells.shape[2:] == (ROWS, COLUMNS)
    assert words.shape[:3] == (1, 32, 1) and words.shape[3] > 1 and float(words.abs().sum()) > 0


@pytest.mark.parametrize("family", ["sd3", "flux2_klein", "lumina2"])
def test_a_generation_goes_on_from_latents_that_were_kept(family: str) -> None:
    pipe = pipeline(family)
    made = Generator(pipe, generation(family, steps=6, t=(1.0,)))
    sampler = EditSampler(made, {})
    starts = [Start(PROMPTS[0], 3)]
    assert sampler.first == {"early": 0, "middle": 2, "final": 4}
    (whole,) = sampler.unedited(starts)
    for stage in ("early", "middle", "final"):
        (again,) = sampler.edited(starts, [[]], stage)
        assert abs(again.astype(int) - whole.astype(int)).max() <= 1, stage


def test_true_guidance_of_a_distilled_model_runs_both_branches() -> None:
    pipe = pipeline("flux")
    with pytest.raises(InputError, match="never runs without the prompt"):
        Generator(pipe, generation("flux", branches=("cond", "uncond")))
    made = Generator(pipe, generation("flux", branches=("cond", "uncond"), true_guidance=2.0))
    seen: set[str] = set()
    made.sample(PROMPTS[:1], [1], lambda site, *_: seen.add(site.branch), decode=False)
    assert seen == {"cond", "uncond"}


def test_an_uncond_edit_of_a_model_that_has_no_such_call_is_refused() -> None:
    pipe = pipeline("flux")
    made = Generator(pipe, generation("flux"))
    edit = Edit(targets=(Target(LAST["flux"], branch="uncond", vector=(1.0,) * 32),), branch="uncond", unit="absolute")
    with pytest.raises(InputError, match="runs without guidance"), steer(pipe, [edit]):
        pipe(latents=made.latents([made.noise(1)]), output_type="latent", **made.arguments(PROMPTS[:1]))


@pytest.mark.parametrize(
    ("family", "wrong", "says"),
    [
        ("sd3", {"height": 30}, "multiple of 4 px"),
        ("sana", {"height": 40}, "multiple of 32 px"),
        ("sd3", {"blocks": ("transformer_blocks.9",)}, "no block 'transformer_blocks.9'; did you mean .*_blocks.1"),
        ("sd3", {"blocks": ("transformer_blocks.1",), **WORDS}, "has no text stream of its own"),
        ("pixart_sigma", WORDS, "accepted: image"),
    ],
)
def test_what_a_transformer_cannot_do_is_said(family: str, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Generator(pipeline(family), generation(family, **wrong))


def test_compiled_blocks_are_heard_as_written() -> None:
    pipe = tiny_dit("sd3")
    made = Generator(pipe, generation("sd3"))
    found: list[dict[Site, Tensor]] = []
    for compile_it in (lambda: None, lambda: compiled(pipe)):
        compile_it()
        seen: dict[Site, Tensor] = {}
        made.sample(PROMPTS[:1], [1], lambda site, x, *_, seen=seen: seen.update({site: x}), decode=False)
        found.append(seen)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][site], found[1][site]) for site in found[0])


def compiled(pipe: Any) -> None:
    """Regionally: every block by itself."""
    for block in pipe.transformer.transformer_blocks:
        block.compile(backend="eager")


def test_a_whole_network_under_torch_compile_is_heard_as_written() -> None:
    pipe = tiny_dit("z_image")
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    made = Generator(pipe, generation("z_image"))
    seen: list[Callable[..., Any]] = []
    made.sample(PROMPTS[:1], [1], lambda site, *_: seen.append(site), decode=False)
    assert len(seen) == 4


def test_repeated_blocks_compiled_by_diffusers_are_heard_as_written() -> None:
    pipe = tiny_dit("flux")
    pipe.transformer.compile_repeated_blocks(backend="eager")
    expect_same(heard_of(pipeline("flux"), "flux"), heard_of(pipe, "flux"))


@pytest.mark.parametrize("how", ["sequential", "model", "block_level", "leaf_level", "vae"])
def test_an_offloaded_network_is_heard_as_written(how: str) -> None:
    import accelerate

    cpu, pipe = torch.device("cpu"), tiny_dit("sd3")
    if how == "sequential":
        accelerate.cpu_offload(pipe.transformer, execution_device=cpu)
    elif how == "model":
        accelerate.cpu_offload_with_hook(pipe.transformer, execution_device=cpu)
    elif how == "vae":
        pipe.vae.enable_tiling()
        pipe.vae.enable_slicing()
    else:
        more = {"num_blocks_per_group": 1} if how == "block_level" else {}
        pipe.transformer.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type=how, **more)
    expect_same(heard_of(pipeline("sd3"), "sd3"), heard_of(pipe, "sd3"))


def heard_of(pipe: Any, family: str) -> dict[Site, Tensor]:
    seen: dict[Site, Tensor] = {}
    made = Generator(pipe, generation(family))
    made.sample(PROMPTS[:1], [1], lambda site, x, *_: seen.update({site: x}), decode=False)
    return seen


def expect_same(one: dict[Site, Tensor], other: dict[Site, Tensor]) -> None:
    assert one.keys() == other.keys() and one
    assert all(torch.equal(one[site], other[site]) for site in one)


def test_what_knows_u_nets_alone_says_so_and_pipelines_nobody_knows_are_named() -> None:
    with pytest.raises(InputError, match=r"gazetteer attribute knows pipelines with a U-Net alone, not a SanaPipeline"):
        require_unet(pipeline("sana"), "gazetteer attribute")
    with pytest.raises(InputError, match=r"A CogView4Pipeline cannot be listened to; accepted: .*, FluxPipeline, "):
        adapter_of_index({"_class_name": "CogView4Pipeline", "transformer": ["diffusers", "X"]}, "folder")
    with pytest.raises(InputError, match="folder is a DDPMPipeline, which has neither a U-Net nor a transformer"):
        adapter_of_index({"_class_name": "DDPMPipeline"}, "folder")
