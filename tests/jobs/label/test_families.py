"""`gazetteer label` on every family of transformers, with random models and autoencoders: tables that hold together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.diffusion.blocks import blocks_of
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import ModelConfig, load_pipeline
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.dits import FAMILIES, saved_dit
from tests.support.system.running import in_process

SETTINGS = [
    "executor=serial", "images=2", "coverage.first=1.0", "sae_check.pictures=0", "labels.permutations=50",
    "labels.refine=100", "labels.min_images=1", "threads=1", "generation.steps=2", "generation.guidance=3.0",
    "generation.branches=[cond]", "generation.t=[1.0]", "generation.height=64", "generation.width=64",
]  # fmt: skip


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_is_labelled_and_its_codes_are_those_of_its_blocks(family: str, tmp_path: Path) -> None:
    folder = saved_dit(family, tmp_path / "model")
    *_, last = blocks_of(ModelConfig(path=str(folder)))
    site = Site(last.block, "cond", 1.0)
    sae = SparseAutoencoder(SAEConfig(last.channels, 64, 4)).initialise(0)
    sae.save_pretrained(tmp_path / "saes" / site.slug, {"site": site})
    asked = [*SETTINGS, f"model.path={folder}", f"generation.blocks=[{last.block}]", f"saes={tmp_path / 'saes'}"]
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    assert not run.check().problems and run.read_final("features").num_rows == 64
    codes = run.read_table("codes").to_pylist()
    images = {row["image_id"]: row for row in run.read_table("images").to_pylist()}
    assert len(codes) == len(images) == 2
    assert {(row["block"], row["stream"], row["signal"]) for row in codes} == {(last.block, "image", "update")}

    config = GenerationConfig(
        steps=2, guidance=3.0, blocks=(last.block,), branches=("cond",), t=(1.0,), height=64, width=64
    )  # fmt: skip
    made = Generator(load_pipeline(ModelConfig(path=str(folder))), config)
    for row in codes:
        seen: list[torch.Tensor] = []
        image = images[row["image_id"]]
        made.sample([image["prompt"]], [image["seed"]], lambda _, x, *__, seen=seen: seen.append(x[0]), decode=False)
        expected = sae.encode(seen[0])
        assert row["height"] * row["width"] == len(seen[0]) and row["k"] == 4
        values = np.asarray(row["value"], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(values, expected.values.detach().numpy(), rtol=2e-3, atol=2e-3)


def test_words_cannot_be_labelled_yet(tmp_path: Path) -> None:
    folder = saved_dit("sd3", tmp_path / "model")
    asked = [*SETTINGS, f"model.path={folder}", "generation.blocks=[transformer_blocks.0]", "generation.streams=[text]"]
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 2 and "text" in done.stderr and "gazetteer sae train" in done.stderr


def test_ddim_does_not_take_the_place_of_flow_matching(tmp_path: Path) -> None:
    folder = saved_dit("flux", tmp_path / "model")
    asked = [*SETTINGS, f"model.path={folder}", "model.scheduler=ddim", "generation.blocks=[transformer_blocks.0]"]
    done = in_process("label", "--out", str(tmp_path / "run"), "--set", *asked)
    assert done.returncode == 2
