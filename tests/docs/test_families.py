"""Every block of the page of families is typed as it stands, beside a tiny model that is called as the real one.

The models have random weights, as many blocks as those published, and the finders of the embedded world. What makes it
short is put behind the settings of the two commands that draw pictures.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save

from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.kept import run_config
from gazetteer.jobs.config.schema import load_config
from tests.support.models.deep import MODELS, UNETS, write_named
from tests.support.models.plain_hooks import UNET, added_to_the_picture
from tests.support.system.hub_cache import put_in_cache
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
WITH_PUBLISHED = [hub_id for hub_id, (_, _, *more) in SECTIONS.items() if more]


def test_every_family_has_a_screen() -> None:
    assert sorted(SECTIONS) == sorted([*UNETS, *MODELS])


@pytest.mark.parametrize("hub_id", list(SECTIONS), ids=lambda hub_id: hub_id.split("/")[-1])
def test_a_screen_can_be_pasted(hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_named(hub_id, tmp_path)
    commands, written, *_ = SECTIONS[hub_id]
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
    check_tables(tmp_path / typed[-1][-1], hub_id, middle)


@pytest.mark.parametrize("hub_id", WITH_PUBLISHED, ids=lambda hub_id: hub_id.split("/")[-1])
def test_published_autoencoders_are_found_by_their_names(
    hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cache that holds the files of the published repositories under their names, with random weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for repository, files in published().items():
        put_in_cache(tmp_path / "cache", repository, "a" * 40, files)
    (block,) = SECTIONS[hub_id][2:]
    typed = block.commands() if block.language == "sh" else own_file(SECTIONS[hub_id][0], block)
    write_named(typed[0][2], tmp_path)
    for _, *words in typed:
        done = in_process(*words, *(SMALLER if words[0] == "label" else []))
        assert done.returncode == 0, f"{words}: {done.stderr}"
        if words[0] == "plan":
            sites = "12 sites, 768 features" if block.language == "yaml" else "3 sites, 192 features"
            assert sites in done.stdout
    assert [words[1] for words in typed][:2] == ["init", "plan"]
    if typed[-1][1] == "label":
        assert RunFolder(tmp_path / "runs" / typed[0][-1].removesuffix(".yaml")).read_final("features").num_rows == 64


def own_file(commands: Block, lines: Block) -> list[list[str]]:
    """The commands by which a file that `init` wrote, with these lines in it, is planned."""
    first = commands.commands()[0]
    own = yaml.safe_load(lines.text)
    assert own["saes"] == load_config("sdxl-turbo").saes and set(own) == {"generation", "saes"}
    taken = [f"saes={json.dumps(own['saes'])}", f"generation.blocks={json.dumps(own['generation']['blocks'])}"]
    return [first, ["gazetteer", "plan", "--config", first[-1], "--set", *taken]]


def check_tables(folder: Path, hub_id: str, block: str) -> None:
    """The codes are what the run's autoencoder, written out, makes of what a plain hook hears of the pipeline itself.

    Of one picture, to spare time.
    """
    run, config, (site,) = RunFolder(folder), run_config(folder), run_config(folder).generation.sites
    assert site.block == block and not run.check().problems and run.read_final("features").num_rows == 64
    rows = run.read_table("codes").to_pylist()
    images = {row["image_id"]: row for row in run.read_table("images").to_pylist()}
    assert len(rows) == len(images) == 2
    family = MODELS[hub_id][0] if hub_id in MODELS else UNET
    for row in rows[:1]:
        image, cells = images[row["image_id"]], row["height"] * row["width"]
        update = added_to_the_picture(
            config.model.path,
            family,
            block,
            cells,
            image["prompt"],
            image["seed"],
            config.generation.guidance,
            (32, 32),
        )
        assert len(update) == cells and row["k"] == 4
        preactivations = by_hand(Path(str(config.saes)) / site.slug, update)
        value, feature = (np.asarray(row[name]).reshape(-1, 4) for name in ("value", "feature"))
        expected = preactivations.topk(4, dim=1).values.clamp(min=0)
        np.testing.assert_allclose(np.sort(value)[:, ::-1], expected.numpy(), rtol=2e-3, atol=2e-5)
        own = preactivations.gather(1, torch.from_numpy(feature).long()).clamp(min=0)
        np.testing.assert_allclose(value, np.where(value > 0, own.numpy(), 0), rtol=2e-3, atol=2e-5)


def by_hand(folder: Path, vectors: torch.Tensor) -> torch.Tensor:
    """What a TopK autoencoder picks from, W_enc (x - b): [vectors, features]."""
    parts = {name: values.float() for name, values in load_file(next(folder.glob("*.safetensors"))).items()}
    return (vectors - parts["bias"]) @ parts["encoder"].T


def published() -> dict[str, dict[str, bytes]]:
    """By repository, autoencoders of random weights under the names and in the layouts of those published."""
    config = {"num_latents": 64, "k": 4, "d_in": 8, "expansion_factor": 8, "normalize_decoder": True}
    config |= {"batch_topk": True, "sample_topk": False, "input_unit_norm": False, "multi_topk": False}
    weights = {"encoder.weight": torch.randn(64, 8), "encoder.bias": torch.zeros(64)}
    weights |= {"W_dec": torch.randn(64, 8), "b_dec": torch.zeros(8)}
    saeuron = {"cfg.json": json.dumps(config).encode(), "sae.safetensors": save(weights)}
    sizes = {"time_mlp.0": (8, 8), "time_mlp.2": (8, 8), "mod_linear": (64, 8), "encoder": (64, 32)}
    sizes |= {"decoder": (32, 64)}
    film = {f"{name}.weight": torch.randn(size) for name, size in sizes.items()}
    film |= {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items()}
    unbox = {"encoder.weight": torch.randn(64, 32), "decoder.weight": torch.randn(32, 64)}
    unbox |= {"pre_bias": torch.zeros(32), "latent_bias": torch.zeros(64)}
    stated = json.dumps({"d_model": 32, "n_dirs_local": 64, "k": 4}).encode()
    return {
        "bcywinski/SAeUron_coco": {f"unet.up_blocks.1.attentions.1/{name}": saeuron[name] for name in saeuron},
        "Artalmaz31/DifFRACT": {
            f"temporal-aware-saes/sae_{stream}_{block}.pt": pickled(film)
            for stream in ("img", "txt") for block in (6, 12, 18)
        },
        "surokpro2/sdxl-saes": {
            f"unet.{block}_k10_hidden5120_auxk256_bs4096_lr0.0001/final/{name}": content
            for block in load_config("sdxl-turbo").generation.blocks
            for name, content in (("config.json", stated), ("state_dict.pth", pickled(unbox)))
        },
    }  # fmt: skip


def pickled(tensors: dict[str, torch.Tensor]) -> bytes:
    """As torch writes a state dict."""
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()
