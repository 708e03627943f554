"""DifFRACT's autoencoders and transcoders, of parts within FLUX's blocks: labelled from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from gazetteer.data.runs.folder import RunFolder
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from tests.jobs.label.test_families import SETTINGS
from tests.support.models.dits import saved_dit
from tests.support.system.running import in_process

D, N, WIDTH = 32, 48, 16


def write(path: Path) -> dict[str, Tensor]:
    """A state dict as the model card describes it, of random weights."""
    torch.manual_seed(1)
    module = nn.ModuleDict(
        {
            "time_mlp": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU()),
            "mod_linear": nn.Linear(WIDTH, 2 * D), "encoder": nn.Linear(D, N), "decoder": nn.Linear(N, D),
        }
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), path)
    return module.state_dict()


def codes(w: dict[str, Tensor], x: Tensor, t: float) -> Tensor:
    """z = ReLU(W (x ⊙ (1 + s(t)) + h(t)) + c), densely."""
    hidden = get_timestep_embedding(torch.tensor([t]), WIDTH)
    for layer in ("time_mlp.0", "time_mlp.2"):
        hidden = nn.functional.silu(hidden @ w[f"{layer}.weight"].T + w[f"{layer}.bias"])
    scale, shift = (hidden @ w["mod_linear.weight"].T + w["mod_linear.bias"]).chunk(2, dim=-1)
    return ((x * (1 + scale) + shift) @ w["encoder.weight"].T + w["encoder.bias"]).relu()


@pytest.mark.parametrize(
    ("file", "part", "stream", "signal"),
    [("sae_img_1.pt", "ff", "image", "output"), ("transcoder_txt_1.pt", "ff_context", "text", "input")],
)
def test_it_is_labelled_where_its_name_says(file: str, part: str, stream: str, signal: str, tmp_path: Path) -> None:
    model, weights = saved_dit("flux", tmp_path / "model"), write(tmp_path / file)
    block = f"transformer_blocks.1.{part}"
    asked = [*SETTINGS, f"model.path={model}", f"generation.blocks=[{block}]", f"generation.streams=[{stream}]",
             f"generation.signals=[{signal}]", f'saes={{"*": "{tmp_path / file}"}}']  # fmt: skip
    planned = in_process("plan", "--json", "--set", *asked)
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout.splitlines()[-1])["features"] == N
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    assert not run.check().problems and run.read_final("features").num_rows == N
    images = {row["image_id"]: row for row in run.read_table("images").to_pylist()}

    pipe, heard = load_pipeline(ModelConfig(path=str(model))), list[Tensor]()

    def hook(_: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        heard.append(args[0] if signal == "input" else output)

    pipe.transformer.get_submodule(block).register_forward_hook(hook)
    config = GenerationConfig(
        steps=2, guidance=3.0, blocks=("transformer_blocks.1",), branches=("cond",), t=(1.0,), height=64, width=64
    )
    made = Generator(pipe, config)
    for row in run.read_table("codes").to_pylist():
        assert (row["block"], row["stream"], row["signal"]) == (block, stream, signal)
        image = images[row["image_id"]]
        heard.clear()
        latents = made.latents([made.noise(image["seed"])])
        pipe(latents=latents, output_type="latent", **made.arguments([image["prompt"]]))
        expected = codes(weights, heard[0][0].float(), 1.0).numpy()
        count = len(expected)
        if stream == "text":
            count = sum(pipe.tokenizer_2(image["prompt"], max_length=512, truncation=True)["attention_mask"])
        found = np.zeros_like(expected)
        features = np.asarray(row["feature"]).reshape(len(expected), -1)
        values = np.asarray(row["value"], np.float32).reshape(features.shape)
        np.maximum.at(found, (np.arange(len(found))[:, None], features.astype(int)), values)  # unused slots hold 0
        np.testing.assert_allclose(found[:count], expected[:count], rtol=4e-3, atol=4e-3)


def test_a_whole_block_is_not_what_it_was_trained_on(tmp_path: Path) -> None:
    model = saved_dit("flux", tmp_path / "model")
    write(tmp_path / "sae_img_1.pt")
    asked = [*SETTINGS, f"model.path={model}", "generation.blocks=[transformer_blocks.1]",
             "generation.signals=[output]", f'saes={{"*": "{tmp_path / "sae_img_1.pt"}"}}']  # fmt: skip
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 2 and "was trained at transformer_blocks.1.ff" in done.stderr
