"""Edits of the text stream act on the tokens of the prompts that a pipeline is called with, and on nothing beside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.edits import Edit, Target
from gazetteer.diffusion.denoisers.registry import adapter_of, network
from gazetteer.diffusion.steer import steer
from tests.diffusion.test_transformers import TWO_CALLS, pipeline
from tests.sae.model.test_autoencoder import random_sae

PROMPTS = ["a red house", "two boats on the sea"]
AGAINST = ["blur", "a bad one"]
BLOCK = {"lumina2": "layers.0"}
GUIDED = {"flux": "true_cfg_scale", "qwen_image": "true_cfg_scale"}
NEVER = {"flux2", "flux2_klein"}
"""Told no negative prompt: FLUX.2 runs without, and klein against an empty one."""


def block_of(family: str) -> str:
    return BLOCK.get(family, "transformer_blocks.0")


def texts(family: str, pipe: Any, edits: list[Edit], saes: Any = None, **told: Any) -> list[Tensor]:
    """The text stream [batch, places, channels] of a block in every call of the first step of a generation."""
    heard: list[Tensor] = []

    def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        heard.append((output if family == "lumina2" else output[0]).clone())

    with steer(pipe, edits, saes), hooked(network(pipe).get_submodule(block_of(family)), hook):
        pipe(num_inference_steps=1, height=32, width=32, output_type="latent",
             generator=torch.Generator().manual_seed(0), **told)  # fmt: skip
    return heard


@contextmanager
def hooked(module: Any, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def told(family: str, prompts: list[str], against: list[str]) -> dict[str, Any]:
    negative = {} if family in NEVER else {"negative_prompt": against}
    return {"prompt": prompts, GUIDED.get(family, "guidance_scale"): 3.0, **negative}


def edit_of(family: str, branch: str, **more: Any) -> Edit:
    width = adapter_of(pipeline(family)).find(network(pipeline(family)), block_of(family)).channels
    target = Target(block_of(family), branch=branch, vector=(1.0, *[0.5] * (width - 1)), stream="text")
    return Edit(**{"targets": (target,), "branch": branch, "window": (0.0, 1.0), "unit": "absolute", **more})


def places(family: str, branch: str, prompts: list[str], held: int) -> Tensor:
    """By the tokenizers alone: how many tokens each prompt has where it stands first, else as the adapter tells."""
    pipe = pipeline(family)
    if family in ("sd3", "flux", "chroma"):
        tokenizer = pipe.tokenizer_2 if family == "flux" else pipe.tokenizer
        lengths = [len(tokenizer(prompt).input_ids) for prompt in prompts]
        return torch.stack([torch.arange(held) < length for length in lengths])
    read = [adapter_of(pipe).tokens(pipe, prompt, branch).read[:held] for prompt in prompts]
    return torch.tensor(read)


@pytest.mark.parametrize("branch", ["cond", "uncond"])
@pytest.mark.parametrize("family", ["sd3", "flux", "chroma", "flux2", "flux2_klein", "qwen_image", "lumina2"])
def test_padding_and_the_other_branch_stay_to_the_bit(family: str, branch: str) -> None:
    pipe = pipeline(family)
    prompts, against = (PROMPTS[:1], AGAINST[:1]) if family == "lumina2" else (PROMPTS, AGAINST)
    if family in NEVER and branch == "uncond":
        return
    plain = texts(family, pipe, [], **told(family, prompts, against))
    edited = texts(family, pipe, [edit_of(family, branch)], **told(family, prompts, against))
    called, other = (0, 1) if branch == "cond" else (1, 0)
    if family in TWO_CALLS - {"sd3"} or family == "flux2":
        before, after = plain[called], edited[called]
        assert family == "flux2" or torch.equal(plain[other], edited[other])
    else:
        halves = [values[0].chunk(2)[::-1] for values in (plain, edited)]  # uncond is stacked first
        before, after = halves[0][called], halves[1][called]
        assert torch.equal(halves[0][other], halves[1][other])
    said = prompts if branch == "cond" else against
    held = before.shape[1] if family != "lumina2" else before.shape[1] - 4  # cells of the picture come last
    read = places(family, branch, said, held)
    changed = (after != before).any(dim=2)[:, :held]
    assert read.any(dim=1).all() and torch.equal(changed, read)
    step = (after - before)[:, :held][read]
    torch.testing.assert_close(step, torch.tensor([1.0, *[0.5] * (step.shape[1] - 1)]).expand_as(step))


@pytest.mark.parametrize("unit", ["code", "code_norm", "code_norm_share", "update_norm"])
def test_units_count_the_tokens_alone(unit: str) -> None:
    """Each at strength 1 of the same feature: what it changes is what a prompt's own tokens come to."""
    pipe, site = pipeline("sd3"), Site(block_of("sd3"), "cond", 1.0, "text")
    sae = random_sae(16, 48, 48)
    target = Target(site.block, features=(3,), stream="text", t=1.0)
    edit = Edit(targets=(target,), window=(0.0, 1.0), unit=unit, strength=1.0)
    call = {"prompt": PROMPTS[:1], "guidance_scale": 1.0}
    given: list[Tensor] = []
    block = network(pipe).get_submodule(site.block)
    handle = block.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs["encoder_hidden_states"]),
                                             with_kwargs=True)  # fmt: skip
    before, after = texts("sd3", pipe, [], **call)[0], texts("sd3", pipe, [edit], {site: sae}, **call)[0]
    handle.remove()
    length = len(pipe.tokenizer(PROMPTS[0]).input_ids)
    update = (before - given[0])[0, :length]
    codes = sae.encode(update)
    own = (codes.values * (codes.indices == 3)).sum(1)
    norms = codes.values.norm(dim=1)
    amount = {
        "code": own,
        "code_norm": norms,
        "code_norm_share": norms / norms.sum(),
        "update_norm": update.norm(dim=1),
    }
    direction = sae.decoder[3] / (sae.decoder[3].norm() if unit == "update_norm" else 1.0)
    torch.testing.assert_close((after - before)[0, :length], amount[unit][:, None] * direction, rtol=1e-3, atol=1e-5)
    assert torch.equal(after[0, length:], before[0, length:])


def test_several_pictures_of_a_prompt_and_a_shorter_text_stream() -> None:
    call = {"prompt": PROMPTS, "num_images_per_prompt": 2, "max_sequence_length": 64}
    plain, edited = (texts("flux", pipeline("flux"), edits, **call)[0] for edits in ([], [edit_of("flux", "cond")]))
    read = places("flux", "cond", PROMPTS, 64).repeat_interleave(2, dim=0)
    assert torch.equal((edited != plain).any(dim=2), read)


def test_a_longer_text_stream_than_the_pipelines_own_is_refused() -> None:
    call = {"prompt": PROMPTS[0], "max_sequence_length": 512, "guidance_scale": 1.0}
    with pytest.raises(InputError, match=r"holds 589 places where the encoders fill 333: .* max_sequence_length"):
        texts("sd3", pipeline("sd3"), [edit_of("sd3", "cond")], **call)


def test_of_flux_the_second_prompt_is_what_the_stream_holds() -> None:
    call = {"prompt": PROMPTS[0], "prompt_2": PROMPTS[1]}
    plain, edited = (texts("flux", pipeline("flux"), edits, **call)[0] for edits in ([], [edit_of("flux", "cond")]))
    assert torch.equal((edited != plain).any(dim=2), places("flux", "cond", PROMPTS[1:], plain.shape[1]))


def test_embeddings_and_several_prompts_a_picture_are_refused_and_nothing_stays_behind() -> None:
    pipe = pipeline("sd3")
    made = pipe.encode_prompt(PROMPTS[0], None, None, do_classifier_free_guidance=False)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    given = {name: value for name, value in zip(names, made, strict=True) if value is not None}
    wrong = {
        "called without a prompt in words; call it with prompts": {**given, "guidance_scale": 1.0},
        "several prompts a picture.*leave prompt_2 and prompt_3 out": {"prompt": "a dog", "prompt_3": "a house"},
    }
    for says, call in wrong.items():
        with pytest.raises(InputError, match=says):
            texts("sd3", pipe, [edit_of("sd3", "cond")], **call)
    assert "check_inputs" not in vars(pipe)
    with steer(pipe, [edit_of("sd3", "cond")]), pytest.raises(InputError, match="called without a prompt in words"):
        network(pipe)(**adapter_of(pipe).example(network(pipe), 16, 16, 8) | {"timestep": torch.full((1,), 1000.0)})


def test_prompts_of_several_lengths_in_a_call_of_lumina_are_refused_with_advice() -> None:
    pipe = pipeline("lumina2")
    with pytest.raises(InputError, match="call the pipeline with one prompt at a time"):
        texts("lumina2", pipe, [edit_of("lumina2", "cond")], prompt=PROMPTS, guidance_scale=1.0)


def test_autoencoders_are_named_as_a_configuration_names_them(tmp_path: Path) -> None:
    """A folder of sites, patterns of sites, and an autoencoder of others that does not say what it reads."""
    pipe, site = pipeline("sd3"), Site(block_of("sd3"), "cond", 1.0)
    sae, edit = random_sae(16, 48, 4), Edit(targets=(Target(site.block, features=(3,), t=1.0),), window=(0.0, 1.0))
    whole = tmp_path / "sites" / site.slug
    sae.save_pretrained(whole, {"site": {"block": site.block, "branch": "cond", "t": 1.0}})

    def drawn(saes: Any, signal: str = "") -> Tensor:
        with steer(pipe, [edit] if saes else [], saes, signal=signal):
            return pipe(PROMPTS[0], num_inference_steps=1, height=32, width=32, output_type="latent",
                        generator=torch.Generator().manual_seed(0)).images  # fmt: skip

    expected = drawn({site: sae})
    assert not torch.equal(expected, drawn(None))
    for saes in (str(tmp_path / "sites"), tmp_path / "sites", {"*": str(whole)}, {"transformer_blocks.*": str(whole)}):
        assert torch.equal(drawn(saes), expected)
    with pytest.raises(InputError, match=r"of which none matches transformer_blocks\.0-cond-t1\.00"):
        drawn({"transformer_blocks.1": str(whole)})
    with pytest.raises(InputError, match="does not say what it reads"):
        drawn({"*": str(unstated(tmp_path / "theirs"))})
    assert not torch.equal(drawn({"*": str(tmp_path / "theirs")}, "update"), drawn(None))


def unstated(folder: Path) -> Path:
    """An autoencoder in sparsify's layout."""
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({"num_latents": 48, "k": 4, "d_in": 16, "expansion_factor": 3}))
    weights = {"encoder.weight": torch.randn(48, 16), "encoder.bias": torch.zeros(48), "b_dec": torch.zeros(16)}
    save_file({**weights, "W_dec": torch.randn(48, 16)}, folder / "sae.safetensors")
    return folder
