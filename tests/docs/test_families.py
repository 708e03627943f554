"""Every block of the page of families is typed as it stands, beside a tiny model that is called as the real one.

The models have random weights, as many blocks as those published, and the finders of the embedded world. What makes it
short is put behind the settings of the two commands that draw pictures.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from gazetteer.data.runs.folder import RunFolder
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.kept import run_config
from gazetteer.sae.model.checkpoint import load_site_saes
from tests.support.models.deep import MODELS, UNETS, write_named
from tests.support.system.pages import Block, blocks_in
from tests.support.system.running import ROOT, in_process

PAGE = ROOT / "docs/guide/families.md"
SMALLER = [
    "generation.steps=1", "generation.t=[1.0]", "generation.exact=true", "generation.height=32", "generation.width=32",
    "model.device=cpu", "model.dtype=float32", "detector.device=cpu", "detector.exact=true", "segmenter.device=cpu",
    "segmenter.exact=true", "sae.device=cpu", "images=2", "coverage.first=1.0", "sae.images=3", "sae.recover=0",
    "sae.train={k: 4, n: 64, batch_size: 8, steps: 1}", "sae_check.pictures=0", "labels.permutations=50", "threads=1",
]  # fmt: skip


def sections() -> dict[str, list[Block]]:
    """The blocks of every family, by the hub id that its first command names."""
    _, *parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M)
    found = [blocks_in(part) for part in parts]
    return {of[0].commands()[0][2]: of for of in found}


SECTIONS = sections()


def test_every_family_has_a_screen() -> None:
    assert sorted(SECTIONS) == sorted([*UNETS, *MODELS])


@pytest.mark.parametrize("hub_id", list(SECTIONS), ids=lambda hub_id: hub_id.split("/")[-1])
def test_a_screen_can_be_pasted(hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_named(hub_id, tmp_path)
    commands, written, *more = SECTIONS[hub_id]
    typed, page = commands.commands(), yaml.safe_load(written.text)
    middle = page["generation"]["blocks"][1]
    assert [words[1] for words in typed] == ["init", "doctor", "plan", "sae", "label"] and not written.why
    for program, *words in typed:
        short = ["--set", *SMALLER, f"generation.blocks=[{middle}]"] if words[0] in ("sae", "label") else []
        done = in_process(*words, *short)
        assert program == "gazetteer" and done.returncode == 0 and done.stdout, f"{words}: {done.stderr}"
        if words[0] == "init":
            said = yaml.safe_load(Path(words[-1]).read_text())
            page["model"]["path"] = str(tmp_path / hub_id)  # which is there, and so a folder
            assert {name: said[name] for name in page} == page
    check_tables(tmp_path / typed[-1][-1], middle)
    for _, *words in (words for block in more for words in block.commands()):
        write_published(re.findall(r'": ([^}]+)}', words[-3])[0])
        done = in_process(*words)
        assert done.returncode == 0 and "3 sites, 192 features" in done.stdout, f"{words}: {done.stderr}"


def check_tables(folder: Path, block: str) -> None:
    """The codes are what the run's autoencoder makes of what the block adds when the picture is drawn again."""
    run, config, (site,) = RunFolder(folder), run_config(folder), run_config(folder).generation.sites
    assert site.block == block and not run.check().problems and run.read_final("features").num_rows == 64
    rows = run.read_table("codes").to_pylist()
    images = {row["image_id"]: row for row in run.read_table("images").to_pylist()}
    assert len(rows) == len(images) == 2
    sae = load_site_saes(str(config.saes), [site])[site]
    made = Generator(load_pipeline(config.model), config.generation)
    for row in rows[:1]:
        seen: list[torch.Tensor] = []
        image = images[row["image_id"]]
        made.sample([image["prompt"]], [image["seed"]], lambda _, x, *__, seen=seen: seen.append(x[0]), decode=False)
        expected = sae.encode(seen[0])
        assert row["height"] * row["width"] == len(seen[0]) and row["k"] == 4
        values = np.asarray(row["value"], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(values, expected.values.detach().numpy(), rtol=2e-3, atol=2e-3)


def write_published(place: str) -> None:
    """An autoencoder of random weights in the layout of the one that is named, DifFRACT's or SAeUron's."""
    path = Path(place)
    path.parent.mkdir(parents=True)
    if path.suffix == ".pt":
        sizes = {"time_mlp.0": (8, 8), "time_mlp.2": (8, 8), "mod_linear": (64, 8), "encoder": (64, 32)}
        sizes |= {"decoder": (32, 64)}
        kept = {f"{name}.weight": torch.randn(size) for name, size in sizes.items()}
        torch.save(kept | {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items()}, path)
        return
    path.mkdir()
    config = {"num_latents": 64, "k": 4, "d_in": 8, "expansion_factor": 8, "normalize_decoder": True}
    config |= {"batch_topk": True, "sample_topk": False, "input_unit_norm": False, "multi_topk": False}
    (path / "cfg.json").write_text(json.dumps(config))
    weights = {"encoder.weight": torch.randn(64, 8), "encoder.bias": torch.zeros(64)}
    save_file(weights | {"W_dec": torch.randn(64, 8), "b_dec": torch.zeros(8)}, path / "sae.safetensors")
