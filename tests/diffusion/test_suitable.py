"""Models that cannot be labelled are told from their configuration, with a sentence; the others work to the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig
from diffusers.utils.import_utils import DummyObject

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.blocks import blocks_of, check_model
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.denoisers.sizes import latent_size
from gazetteer.diffusion.flops import model_cost
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from tests.support.models.dits import FAMILIES, saved_dit, tiny_dit
from tests.support.models.tiny_pipeline import BLOCKS, tiny_pipeline

SETTINGS: dict[str, Any] = {"steps": 2, "guidance": 3.0, "blocks": BLOCKS, "t": (1.0,)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def unet_of(folder: Path, **values: object) -> None:
    """Another U-Net of the same kind, with weights that fit its configuration."""
    config = json.loads((folder / "unet" / "config.json").read_text()) | values
    shutil.rmtree(folder / "unet")
    torch.manual_seed(0)
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")


def pipeline_class(name: str) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "model_index.json", _class_name=name)


def inpainting(folder: Path) -> None:
    unet_of(folder, in_channels=9)


def controlnet(folder: Path) -> None:
    ControlNetModel.from_unet(tiny_pipeline().unet).save_pretrained(folder / "controlnet")
    edit(
        folder / "model_index.json", _class_name="StableDiffusionControlNetPipeline",
        controlnet=["diffusers", "ControlNetModel"],
    )  # fmt: skip


CANNOT: list[tuple[Callable[[Path], None], str]] = [
    (pipeline_class("StableDiffusionImg2ImgPipeline"), "Img2ImgPipeline, which starts from a picture"),
    (pipeline_class("StableDiffusionInpaintPipeline"), "InpaintPipeline, which starts from a picture"),
    (pipeline_class("StableDiffusionInstructPix2PixPipeline"), "Pix2PixPipeline, which starts from a picture"),
    (pipeline_class("StableDiffusionPAGPipeline"), "PAGPipeline, which takes pag_scale: with perturbed attention"),
    (pipeline_class("StableDiffusionSAGPipeline"), "SAGPipeline, which takes sag_scale: with self-attention guidance"),
    (controlnet, "ControlNetPipeline, which starts from a picture"),
    (pipeline_class("StableDiffusionOfTheFuture"), "this version of diffusers does not have"),
    (inpainting, "reads 9 channels and the VAE makes 4"),
    (lambda folder: unet_of(folder, num_class_embeds=10), "wants a class or noise level"),
    (
        lambda folder: unet_of(folder, encoder_hid_dim_type="image_proj", encoder_hid_dim=8),
        "wants image_proj beside the text",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), CANNOT, ids=lambda value: value if isinstance(value, str) else "")
def test_a_model_that_wants_more_than_text_is_refused_from_its_configuration(
    folder: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(folder)
    for weights in folder.glob("unet/*.safetensors"):
        weights.write_bytes(b"\x02\0\0\0\0\0\0\0{}")  # sound and empty: whoever loaded it would fail otherwise
    for ask in (blocks_of, lambda model: check_model(model, GenerationConfig(**SETTINGS))):
        with pytest.raises(InputError, match=sentence):
            ask(ModelConfig(path=str(folder)))


def test_rectangular_models_draw_rectangles(folder: Path) -> None:
    edit(folder / "unet" / "config.json", sample_size=[8, 12])
    model = ModelConfig(path=str(folder))
    assert {(block.height, block.width) for block in blocks_of(model)} == {(4, 6)}
    assert check_model(model, GenerationConfig(**SETTINGS)) == dict.fromkeys(BLOCKS, 32)
    made = Generator(load_pipeline(model), GenerationConfig(**SETTINGS))
    grids: set[tuple[int, int]] = set()
    image = made.sample(["a red house"], [1], lambda _site, _x, height, width: grids.add((height, width)))
    assert image is not None and image.shape == (1, 16, 24, 3) and grids == {(4, 6)}


def test_models_that_are_told_the_guidance_have_a_conditional_branch_alone(folder: Path) -> None:
    unet_of(folder, time_cond_proj_dim=8)
    model = ModelConfig(path=str(folder))
    both, cond = GenerationConfig(**SETTINGS), GenerationConfig(**SETTINGS, branches=("cond",))
    for refused in (lambda: check_model(model, both), lambda: Generator(load_pipeline(model), both)):
        with pytest.raises(InputError, match=r"told the guidance scale.*generation.branches=\[cond\]"):
            refused()
    check_model(model, cond)
    made, seen = Generator(load_pipeline(model), cond), list[int]()
    image = made.sample(["a red house"], [1], lambda site, x, *_: seen.append(len(x)))
    assert image is not None and np.isfinite(image).all() and seen == [1] * len(BLOCKS)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"height": 17}, r"generation.height is 17, .* multiple of 2 px; set generation.height=16"),
        ({"width": 1}, r"generation.width is 1, .*set generation.width=2"),
        ({"blocks": ("mid_block.nothing",)}, "no block 'mid_block.nothing'"),
    ],
)
def test_sizes_and_blocks_are_checked_before_anything_is_drawn(folder: Path, settings: dict, sentence: str) -> None:
    generation = GenerationConfig(**SETTINGS | settings)
    with pytest.raises(InputError, match=sentence):
        check_model(ModelConfig(path=str(folder)), generation)
    with pytest.raises(InputError, match=sentence):
        Generator(load_pipeline(ModelConfig(path=str(folder))), generation)


def test_samplers_are_rehearsed_from_the_configuration(folder: Path) -> None:
    index = folder / "model_index.json"
    edit(index, scheduler=["diffusers", "DDIMInverseScheduler"])
    with pytest.raises(InputError, match="DDIMInverseScheduler runs from picture to noise"):
        check_model(ModelConfig(path=str(folder)), GenerationConfig(**SETTINGS))
    check_model(ModelConfig(path=str(folder), scheduler="ddim"), GenerationConfig(**SETTINGS))


@pytest.mark.parametrize("sampler", ["EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"])
def test_ddim_takes_no_place_of_a_sampler_without_betas(folder: Path, sampler: str) -> None:
    edit(folder / "model_index.json", scheduler=["diffusers", sampler])
    asked = ModelConfig(path=str(folder), scheduler="ddim")
    for refused in (
        lambda: check_model(asked, GenerationConfig(**SETTINGS)),
        lambda: load_pipeline(asked),
        lambda: model_cost(asked, 4),
    ):
        with pytest.raises(InputError, match=f"a noise schedule of betas, and {sampler} has none.*leave"):
            refused()
    check_model(ModelConfig(path=str(folder)), GenerationConfig(**SETTINGS))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_true_guidance_is_refused_by_what_never_hears_it(family: str) -> None:
    pipe, branch = tiny_dit(family), "cond" if family == "flux2" else "uncond"
    blocks = tuple(list(adapter_of(pipe).blocks(pipe.transformer))[:1])
    asked = GenerationConfig(
        steps=2, guidance=1.0, true_guidance=4.0, height=64, width=64, blocks=blocks, branches=(branch,), t=(1.0,)
    )
    if family == "flux":
        assert Generator(pipe, asked).arguments(["a"])["true_cfg_scale"] == 4.0
        return
    with pytest.raises(InputError, match=r"true_guidance is heard by FLUX.1 alone; .* set generation.guidance"):
        Generator(pipe, asked)


def test_true_guidance_is_refused_from_a_u_nets_configuration(folder: Path) -> None:
    asked = GenerationConfig(**SETTINGS | {"guidance": 1.0}, true_guidance=4.0)
    with pytest.raises(InputError, match=r"heard by FLUX.1 alone; for a U-Net set generation.guidance"):
        check_model(ModelConfig(path=str(folder)), asked)


def test_words_in_batches_are_refused_from_the_configuration_where_streams_are_as_long_as_prompts(
    tmp_path: Path,
) -> None:
    asked = {"steps": 2, "guidance": 3.0, "branches": ("cond",), "t": (1.0,), "streams": ("text",)}
    for family, block, refused in (("lumina2", "layers.1", True), ("qwen_image", "transformer_blocks.1", False)):
        model = ModelConfig(path=str(saved_dit(family, tmp_path / family)))
        cost = model_cost(model, 2)
        for check in (lambda words, model=model: check_model(model, words), cost.check):
            check(GenerationConfig(blocks=(block,), **asked))
            check(GenerationConfig(blocks=(block,), **asked | {"streams": ("image",)}, exact=False))
            words = GenerationConfig(blocks=(block,), **asked, exact=False)
            if not refused:
                check(words)
                continue
            with pytest.raises(InputError, match=r"one prompt a call alone; set generation\.exact=true"):
                check(words)


def test_a_u_net_that_projects_its_text_is_described_and_priced_by_what_it_is_given(folder: Path) -> None:
    """As Kolors' does: its text is wider than what its attention reads."""
    model, plain = ModelConfig(path=str(folder)), model_cost(ModelConfig(path=str(folder)), 4)
    unet_of(folder, encoder_hid_dim=24)
    assert {block.block for block in blocks_of(model)} > set(BLOCKS)
    words, width, attended = 32, 24, json.loads((folder / "unet" / "config.json").read_text())["cross_attention_dim"]
    assert model_cost(model, 4).denoiser - plain.denoiser == 2 * words * width * attended


def test_kolors_is_priced_with_the_text_encoder_that_diffusers_brings(folder: Path) -> None:
    """By the formula of one layer, 2 T (4 d² + 2 d f) + 4 T² d, of the 256 tokens that its pipeline reads."""
    plain = model_cost(ModelConfig(path=str(folder)), 4)
    shutil.rmtree(folder / "text_encoder")
    ChatGLMConfig(num_layers=3, hidden_size=8, ffn_hidden_size=20, seq_length=32768).save_pretrained(
        folder / "text_encoder"
    )
    classes = {"text_encoder": ["kolors", "ChatGLMModel"], "tokenizer": ["kolors", "ChatGLMTokenizer"]}
    edit(folder / "model_index.json", _class_name="KolorsPipeline", **classes)
    cost = model_cost(ModelConfig(path=str(folder)), 4)
    assert cost.text == 3 * (2 * 256 * (4 * 8 * 8 + 2 * 8 * 20) + 4 * 256**2 * 8)
    assert cost.denoiser > plain.denoiser and cost.decode == plain.decode  # more text to attend to


def test_a_pipeline_whose_library_is_not_here_is_told_from_a_wrong_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StableDiffusionPipeline(metaclass=DummyObject):  # as diffusers puts one in the place of Kolors'
        _backends = ["torch", "torchsde"]  # noqa: RUF012

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ImportError

    available = {"torch": (lambda: True, ""), "torchsde": (lambda: False, "")}
    monkeypatch.setattr(diffusers.utils.import_utils, "BACKENDS_MAPPING", available)
    monkeypatch.setattr(diffusers, "StableDiffusionPipeline", StableDiffusionPipeline)
    with pytest.raises(InputError, match=r"is a StableDiffusionPipeline, which needs torchsde: pip install torchsde\."):
        blocks_of(ModelConfig(path=str(folder)))
    edit(folder / "model_index.json", scheduler=["diffusers", "AbsentScheduler"])
    monkeypatch.setattr(diffusers, "AbsentScheduler", StableDiffusionPipeline, raising=False)
    with pytest.raises(InputError, match="could not be read from its configurations"):
        model_cost(ModelConfig(path=str(folder)), 4)


def test_latent_sizes_by_hand() -> None:
    assert latent_size({"sample_size": 64}) == (64, 64)
    assert latent_size({"sample_size": [16, 24]}, 0, 64, 8) == (16, 8)
    with pytest.raises(InputError, match=r"does not state the size.*generation.height"):
        latent_size({"sample_size": None})
