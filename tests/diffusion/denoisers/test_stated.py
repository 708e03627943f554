"""What configurations state and nobody can use gets one sentence that names it, before a weight is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.blocks import check_model, offer_of
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.flops import model_cost
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from tests.support.models.dits import saved_dit, tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline

ABSENT = object()
VAE, SAMPLER = "vae/config.json", "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def stating(models: Path) -> Iterator[Any]:
    """A family's folder in which one value is another for as long as the test takes."""
    written: dict[Path, str] = {}

    def write(family: str, file: str, key: str, value: Any) -> Path:
        folder = models / family
        if not folder.exists():
            saved_dit(family, folder)
        path = folder / file
        written[path] = path.read_text()
        stated = json.loads(written[path]) | {key: value}
        path.write_text(json.dumps({name: own for name, own in stated.items() if own is not ABSENT}))
        return folder

    yield write
    for path, text in written.items():
        path.write_text(text)


def asked(**more: Any) -> GenerationConfig:
    return GenerationConfig(
        **{"steps": 2, "guidance": 1.0, "blocks": ("transformer_blocks.0",), "branches": ("cond",), "t": (1.0,)} | more
    )


@pytest.mark.parametrize(
    ("family", "file", "key", "value", "named"),
    [
        ("sana", VAE, "encoder_block_out_channels", ABSENT, "has no encoder_block_out_channels"),
        ("sana", VAE, "encoder_block_out_channels", None, "says encoder_block_out_channels=None"),
        ("sana", VAE, "encoder_block_out_channels", [], "says encoder_block_out_channels=[]"),
        ("sana", "transformer/config.json", "sample_size", 1.5, "sample_size must be a whole number"),
        ("qwen_image", VAE, "temperal_downsample", ABSENT, "has no temperal_downsample"),
        ("qwen_image", VAE, "temperal_downsample", None, "says temperal_downsample=None"),
        ("sd3", VAE, "block_out_channels", None, "says block_out_channels=None"),
        ("sd3", VAE, "block_out_channels", [], "says block_out_channels=[]"),
        ("sd3", "model_index.json", "scheduler", "x", "the class of its scheduler, not 'x'"),
        ("sd3", "model_index.json", "scheduler", -1, "the class of its scheduler, not -1"),
        ("sd3", "model_index.json", "vae", ABSENT, "the class of its vae, not None"),
        ("sd3", "transformer/config.json", "patch_size", None, "transformer/config.json says patch_size=None"),
        ("flux", "transformer/config.json", "num_attention_heads", "x", "says num_attention_heads='x'"),
    ],
)
def test_a_value_that_nobody_can_use_is_named(
    stating: Any, family: str, file: str, key: str, value: Any, named: str
) -> None:
    folder = stating(family, file, key, value)
    model = ModelConfig(path=str(folder))
    for ask in (lambda: offer_of(model), lambda: check_model(model, asked())):
        with pytest.raises(InputError, match=re.escape(named)) as refused:
            ask()
        assert "\n" not in str(refused.value)
    if value is not ABSENT:  # what the VAE's class would take then is priced
        with pytest.raises(InputError):
            model_cost(model, 2)


def test_a_transformer_of_no_layers_offers_nothing(stating: Any) -> None:
    model = ModelConfig(path=str(stating("sd3", "transformer/config.json", "num_layers", 0)))
    with pytest.raises(InputError, match="describes a SD3Transformer2DModel without a single block"):
        offer_of(model)
    with pytest.raises(InputError, match=r"no block 'transformer_blocks\.0'"):
        check_model(model, asked())


@pytest.mark.parametrize("key", ["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"])
def test_what_shifts_a_sampler_is_a_number(stating: Any, key: str) -> None:
    model = ModelConfig(path=str(stating("qwen_image", SAMPLER, key, None)))
    with pytest.raises(InputError, match=f"The sampler's {key} must be a number, not None"):
        check_model(model, asked(height=64, width=64))


@pytest.mark.parametrize(("family", "largest"), [("sd3", 96), ("z_image", 256)])
def test_a_size_that_a_model_has_no_places_for_is_refused_before_anything_is_drawn(
    stating: Any, family: str, largest: int
) -> None:
    block = ("layers.0",) if family == "z_image" else ("transformer_blocks.0",)
    folder, pipe = stating(family, "model_index.json", "_name_or_path", ""), tiny_dit(family)
    model = ModelConfig(path=str(folder))
    check_model(model, asked(blocks=block, height=largest, width=largest))
    for side in ("height", "width"):
        larger = asked(blocks=block, **{"height": largest, "width": largest} | {side: largest + 4})
        for refused in (
            lambda larger=larger: check_model(model, larger),
            lambda larger=larger: Generator(pipe, larger),
        ):
            with pytest.raises(InputError, match=rf"places for; set generation.{side}={largest} or less"):
                refused()


def test_a_model_without_a_table_of_places_draws_any_size(stating: Any) -> None:
    folder = stating("sana", "model_index.json", "_name_or_path", "")
    check_model(ModelConfig(path=str(folder)), asked(height=4096, width=4096))


@pytest.mark.parametrize("block", ["mid_block.resnets.0.conv1", "up_blocks.0.upsamplers.0.conv"])
def test_a_single_convolution_of_a_u_net_is_heard_by_its_output_alone(tmp_path: Path, block: str) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    model = ModelConfig(path=str(tmp_path / "model"))
    for refused in (
        lambda: check_model(model, asked(blocks=(block,))),
        lambda: Generator(load_pipeline(model), asked(blocks=(block,))),
    ):
        with pytest.raises(InputError, match=rf"{block} is a single convolution.*generation\.signals=\[output\]"):
            refused()
    for signal in ("output", "input"):
        check_model(model, asked(blocks=(block,), signals=(signal,)))
