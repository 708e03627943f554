"""Published transformers at full size, without their weights: blocks, grids, widths, and what a job with them costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gazetteer.diffusion.blocks import Block, blocks_of
from gazetteer.diffusion.flops import model_cost
from gazetteer.diffusion.load import ModelConfig
from gazetteer.jobs.config.schema import load_config
from tests.support.models import published_dits as published
from tests.support.models.dits import saved_dit
from tests.support.system.running import ROOT, in_process

MODELS = ROOT / "data/scenes/models"
EMBEDDED = [
    "vocabulary={concepts: [dog]}",
    f"detector.path={MODELS / 'detector'}",
    f"segmenter.path={MODELS / 'segmenter'}",
]


@pytest.mark.parametrize(
    ("write", "blocks", "width", "preset", "tflop"),
    [
        (published.write_sd35_medium, {"transformer_blocks": 24}, 1536, "sd35-medium", (13.0, 22.0)),
        (
            published.write_flux_schnell, {"transformer_blocks": 19, "single_transformer_blocks": 38}, 3072,
            "flux-schnell", (100.0, 180.0),
        ),
        (published.write_qwen_image, {"transformer_blocks": 60}, 3072, "", (140.0, 260.0)),
    ],
    ids=["sd35-medium", "flux-schnell", "qwen-image"],
)  # fmt: skip
def test_blocks_and_costs_follow_from_the_configurations(
    write: Callable[[Path], Path], blocks: dict[str, int], width: int, preset: str, tflop: tuple[float, float],
    tmp_path: Path,
) -> None:  # fmt: skip
    """64 x 64 cells of 2 x 2 latent cells at 1024 px; the plan counts the real modules on the meta device."""
    folder = write(tmp_path / "model")
    found = blocks_of(ModelConfig(path=str(folder)))
    names = [f"{name}.{number}" for name, count in blocks.items() for number in range(count)]
    assert [one.block for one in found] == names
    assert found[0] == Block(names[0], 64, 64, width, ("image", "text"))
    last_of_sd3 = preset == "sd35-medium"
    assert found[-1].streams == (("image",) if last_of_sd3 else ("image", "text"))
    (tmp_path / "prompts.csv").write_text("caption\na red house\n")
    asked = [f"model.path={folder}", f"prompts.path={tmp_path / 'prompts.csv'}", "images=1", *EMBEDDED]
    if not preset:
        asked += ["generation.steps=50", "generation.guidance=4.0", "generation.height=1024", "generation.width=1024"]
        asked += [f"generation.blocks=[{names[30]}]", "prompts.column=caption"]
    own = ["--config", preset] if preset else []
    done = in_process("plan", *own, "--json", "--set", *asked, f"saes={tmp_path}")
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout.splitlines()[-1])
    generation = load_config(preset or None, [] if preset else asked).generation
    branches = 2 if generation.guidance > 1 else 1
    assert counted["counts"]["denoiser_evaluations"] == generation.steps * branches
    each = counted["flops"]["generate"] / 1e12 / (generation.steps * branches)
    assert tflop[0] / 2 < each < tflop[1], each


@pytest.mark.parametrize(("family", "estimated"), [("sd3", False), ("flux", False), ("lumina2", True)])
def test_a_transformer_that_asks_for_content_is_estimated_and_the_plan_says_so(
    family: str, estimated: bool, tmp_path: Path
) -> None:
    cost = model_cost(ModelConfig(path=str(saved_dit(family, tmp_path / "model"))), 2)
    assert cost.estimated == estimated and cost.denoiser > 0
    if not estimated:
        return
    (tmp_path / "prompts.txt").write_text("a red house\n")
    asked = [f"model.path={tmp_path / 'model'}", f"prompts.path={tmp_path / 'prompts.txt'}", "images=1"]
    block = next(iter(cost.blocks))
    asked += [f"generation.blocks=[{block}]", "generation.guidance=4.0", f"saes={tmp_path / 'none'}"]
    done = in_process("plan", "--json", "--set", *asked)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])["assumed"]
    assert any("operations of the denoiser from the weights" in sentence for sentence in said)
