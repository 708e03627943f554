"""LoRA, loaded and fused: what is heard is what the changed blocks write, and a fused folder is another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.sites import Site
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of, network
from gazetteer.diffusion.generate import Generator
from tests.support.models.dits import tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline

PROMPTS = ["a red house"]


def made_of(family: str) -> tuple[Any, str]:
    """A pipeline and the block that is heard."""
    return (
        (tiny_pipeline(), "mid_block.attentions.0") if family == "unet" else (tiny_dit(family), "transformer_blocks.0")
    )


def lora(pipe: Any, folder: Path) -> Path:
    """Weights of rank 2 on every query and value, none of them zero, as diffusers saves them."""
    part, net = adapter_of(pipe).part, network(pipe)
    net.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    type(pipe).save_lora_weights(folder, **{f"{part}_lora_layers": get_peft_model_state_dict(net)})
    return folder


def heard(pipe: Any, block: str) -> tuple[dict[Site, Tensor], list[Tensor]]:
    """The updates of a block as they are captured, and as a plain hook has them, step by step."""
    size = {"height": 32, "width": 32} if adapter_of(pipe).part == "transformer" else {}
    config = GenerationConfig(blocks=(block,), branches=("cond",), t=(1.0, 0.0), steps=2, guidance=1.0, **size)
    seen: dict[Site, Tensor] = {}
    plain: list[Tensor] = []

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        plain.append(((output[1] if "encoder_hidden_states" in kwargs and not args else output[0]) - before).clone())

    handle = network(pipe).get_submodule(block).register_forward_hook(hook, with_kwargs=True)
    try:
        Generator(pipe, config).sample(PROMPTS, [3], lambda site, x, *_: seen.update({site: x}), decode=False)
    finally:
        handle.remove()
    return seen, plain


@pytest.mark.parametrize("family", ["unet", "flux"])
def test_a_fused_lora_is_heard_and_is_another_model(family: str, tmp_path: Path) -> None:
    weights = lora(made_of(family)[0], tmp_path / "lora")
    pipe, block = made_of(family)
    pipe.save_pretrained(tmp_path / "without")
    without, _ = heard(pipe, block)
    pipe.load_lora_weights(weights)
    loaded, plain = heard(pipe, block)
    assert_equal(loaded, plain)
    pipe.fuse_lora()
    fused, plain = heard(pipe, block)
    assert_equal(fused, plain)
    for site, x in fused.items():
        assert not torch.allclose(x, without[site], atol=1e-3), "the LoRA does nothing"
        assert torch.allclose(x, loaded[site], atol=1e-4)
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "fused")
    digests = {digest_path(str(tmp_path / name)) for name in ("without", "fused")}
    assert len(digests) == 2
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "fused", local_files_only=True)
    again.set_progress_bar_config(disable=True)
    for site, x in heard(again, block)[0].items():
        assert torch.allclose(x, fused[site], atol=1e-6)


def assert_equal(seen: dict[Site, Tensor], plain: list[Tensor]) -> None:
    assert len(seen) == 2
    for step, site in enumerate(sorted(seen, key=lambda site: -site.t)):
        values = plain[step][-1:].flatten(2).transpose(1, 2) if plain[step].ndim == 4 else plain[step][-1:]
        own = seen[site].flatten(2).transpose(1, 2) if seen[site].ndim == 4 else seen[site]
        assert torch.equal(own.reshape(-1), values.float().reshape(-1)), site.slug
