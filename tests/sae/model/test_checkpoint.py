"""Checkpoints: what is saved comes back, and whatever else is found gets a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gazetteer.data.core.errors import GazetteerError, InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.checkpoint import expect_width, load_pretrained, load_site_saes
from tests.sae.model.test_autoencoder import random_sae

SITE = Site("mid_block.attentions.0", "cond", 0.5)
OTHER = Site("up_blocks.1.attentions.0", "uncond", 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_sae(6, 12, 3).save_pretrained(tmp_path / "sae", {"site": SITE, "metrics": {"l0": 3.0}})
    return tmp_path / "sae"


def test_round_trip(folder: Path):
    sae, config = load_pretrained(folder)
    for name, value in random_sae(6, 12, 3).state_dict().items():
        assert torch.equal(sae.state_dict()[name], value)
    assert (config["d"], config["n"], config["k"]) == (6, 12, 3)
    assert config["site"] == SITE.columns()
    assert (config["normalisation"], config["metrics"]) == ("none", {"l0": 3.0})
    assert not any(parameter.requires_grad for parameter in sae.parameters())


def test_half_precision_weights_load_as_float32(tmp_path: Path):
    original = random_sae(6, 12, 3)
    original.save_pretrained(tmp_path, dtype=torch.float16)
    sae, config = load_pretrained(tmp_path)
    assert sae.encoder.dtype == torch.float32
    assert torch.equal(sae.encoder, original.encoder.half().float())
    assert config["dtype"] == "float16"
    with pytest.raises(InputError, match="float32 or float16"):
        original.save_pretrained(tmp_path, dtype=torch.float64)


def test_saving_the_same_twice_gives_the_same_bytes(folder: Path, tmp_path: Path):
    random_sae(6, 12, 3).save_pretrained(tmp_path / "again", {"site": SITE, "metrics": {"l0": 3.0}})
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def rewrite(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_missing_things_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="There is no SAE folder"):
        load_pretrained(tmp_path / "nowhere")
    for name in ("ae.pt", "x.safetensors", "sae.pth"):
        with pytest.raises(InputError, match=rf"There is no SAE file .*nowhere/{name}\."):
            load_pretrained(tmp_path / "nowhere" / name)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no finished SAE: config\.json is missing"):
        load_pretrained(folder)


def test_pickles_are_never_opened(tmp_path: Path):
    (tmp_path / "sae.pt").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(InputError, match=r"sae\.pt is a pickle file"):
        load_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"sae\.pt is a pickle file"):
        load_pretrained(tmp_path / "sae.pt")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"d": "six"}, "d, n and k as whole numbers"),
        ({"k": True}, "d, n and k as whole numbers"),
        ({"k": 13}, "k must not exceed n"),
        (
            {"d": 7},
            r"bias is \[6\], but config.json says \[7\]|encoder is \[12, 6\], but config.json says \[12, 7\]",
        ),
        ({"format": 9}, "has format 9; this version reads format 1"),
        ({"sha256": "0" * 64}, "the digests differ"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, values: dict, sentence: str):
    rewrite(folder, **values)
    with pytest.raises(InputError, match=sentence):
        load_pretrained(folder)


def test_broken_json_and_broken_weights(folder: Path):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-5])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_pretrained(folder)


def test_other_tensors_are_refused(folder: Path):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({"W_enc": tensors["encoder"]}, path)
    with pytest.raises(InputError, match="holds W_enc; an SAE has bias, decoder, encoder"):
        load_pretrained(folder)
    tensors["bias"][2] = float("nan")
    save_file(tensors, path)
    with pytest.raises(InputError, match="bias holds values that are not finite"):
        load_pretrained(folder)


def test_the_wrong_width_is_a_sentence():
    sae = random_sae(96, 100, 3)
    expect_width(sae, 96, SITE)
    with pytest.raises(
        InputError, match=r"The SAE in saes/a expects 96 channels, but mid_block.attentions.0 has 128\."
    ):
        expect_width(sae, 128, SITE, "saes/a")
    with pytest.raises(InputError, match=rf"The SAE of {SITE.slug} expects 96"):
        expect_width(sae, 128, SITE)


def test_the_saes_of_many_sites(tmp_path: Path):
    for seed, site in enumerate((SITE, OTHER)):
        random_sae(6, 12, 3, seed).save_pretrained(tmp_path / site.slug, {"site": site})
    saes = load_site_saes(tmp_path, [OTHER, SITE])
    assert list(saes) == [SITE, OTHER]
    assert torch.equal(saes[OTHER].encoder, random_sae(6, 12, 3, 1).encoder)


def test_all_missing_sites_are_named_at_once(tmp_path: Path):
    third = Site("down_blocks.2.attentions.1", "cond", 0.0)
    random_sae(6, 12, 3).save_pretrained(tmp_path / SITE.slug, {"site": SITE})
    with pytest.raises(InputError, match=rf"2 of 3 sites \(.*sae train.*\): {third.slug}, {OTHER.slug}"):
        load_site_saes(tmp_path, [SITE, OTHER, third])


def test_an_sae_in_the_wrong_folder_is_refused(tmp_path: Path):
    random_sae(6, 12, 3).save_pretrained(tmp_path / OTHER.slug, {"site": SITE})
    with pytest.raises(InputError, match=f"was trained at {SITE.slug}"):
        load_site_saes(tmp_path, [OTHER])


def test_a_malformed_site_is_refused(tmp_path: Path):
    random_sae(6, 12, 3).save_pretrained(tmp_path / SITE.slug, {"site": {"where": "mid"}})
    with pytest.raises(InputError, match="site must give block, branch and t"):
        load_site_saes(tmp_path, [SITE])


def test_weights_that_would_not_load_are_not_written(tmp_path: Path):
    sae = random_sae(6, 12, 3)
    with torch.no_grad():
        sae.encoder[0, 0] = 1e5  # finite in float32 alone
    sae.save_pretrained(tmp_path / "single")
    with pytest.raises(GazetteerError, match=r"encoder is not finite in torch\.float16"):
        sae.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert not (tmp_path / "half").exists()
