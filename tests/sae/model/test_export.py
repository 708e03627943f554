"""Autoencoders in other projects' layouts: read back they are the same; the projects' own loaders see the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.format import hook_block
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.model.checkpoint import expect_site, load_pretrained
from gazetteer.sae.model.export import export
from tests.sae.formats.test_written import WRITTEN, place
from tests.sae.model.test_autoencoder import random_sae

SITE = Site("mid_block.attentions.0", "cond", 0.5)
X = torch.randn(40, 6, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("layout", ["sae-lens", "sdxl-unbox"])
def test_a_top_k_autoencoder_comes_back(tmp_path: Path, layout: str) -> None:
    sae = random_sae(6, 12, 3)
    sae.save_pretrained(tmp_path / "ours", {"site": SITE})
    assert export(tmp_path / "ours", tmp_path / "theirs", layout) == [tmp_path / "theirs"]
    again, config = load_pretrained(tmp_path / "theirs")
    assert (config["layout"], config["signal"], config["k"]) == (layout, "update", 3)
    assert torch.equal(again(X), sae(X))
    if layout == "sae-lens":
        assert config["block"] == SITE.block


def test_batch_top_k_goes_to_sae_lens_as_the_jump_relu_that_it_is(tmp_path: Path) -> None:
    sae = SparseAutoencoder(SAEConfig(6, 12, 3, batch_topk=True, max_k=12)).initialise(0, torch.ones(6))
    with torch.no_grad():
        sae.threshold.fill_(0.3)  # type: ignore[union-attr]
    sae.save_pretrained(tmp_path / "ours", {"site": SITE})
    export(tmp_path / "ours", tmp_path / "theirs", "sae-lens")
    again, config = load_pretrained(tmp_path / "theirs")
    assert config["architecture"] == "jumprelu"
    torch.testing.assert_close(again(X), sae(X))
    with pytest.raises(InputError, match="is a BatchTopK autoencoder; sdxl-unbox holds TopK ones"):
        export(tmp_path / "ours", tmp_path / "unbox", "sdxl-unbox")
    assert not (tmp_path / "unbox").exists()


@pytest.mark.parametrize(
    ("block", "hook"),
    [
        ("layers.3", "layers.3"), ("blocks.2.attn1", "blocks.2.attn1"),
        ("transformer_blocks.1", "transformer_blocks.1"),
        ("single_transformer_blocks.0", "single_transformer_blocks.0"), ("mid_block", "unet.mid_block"),
        ("up_blocks.1.attentions.0", "unet.up_blocks.1.attentions.0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("stream", "other"), [("text", "image"), ("image", "text")])
def test_the_block_and_stream_of_every_family_come_back(
    tmp_path: Path, block: str, hook: str, stream: str, other: str
) -> None:
    site = Site(block, "cond", 0.5, stream=stream)
    random_sae(6, 12, 3).save_pretrained(tmp_path / "ours", {"site": site})
    export(tmp_path / "ours", tmp_path / "theirs", "sae-lens")
    stated = json.loads((tmp_path / "theirs" / "cfg.json").read_text())
    assert (stated["metadata"]["hook_name"], stated["stream"]) == (hook, stream)
    config = load_pretrained(tmp_path / "theirs")[1]
    assert config["block"] == block
    expect_site(config, site, "theirs")
    with pytest.raises(InputError, match=f"was trained at {block}, not at layers.9"):
        expect_site(config, Site("layers.9", "cond", 0.5, stream=stream), "theirs")
    with pytest.raises(InputError, match=f"reads the {stream} stream, not the {other}"):
        expect_site(config, Site(block, "cond", 0.5, stream=other), "theirs")
    export(tmp_path / "theirs", tmp_path / "again", "sae-lens")
    assert json.loads((tmp_path / "again" / "cfg.json").read_text()) == stated


@pytest.mark.parametrize(
    "name", ["blocks.8.hook_resid_pre", "blocks.0.attn.hook_z", "model.layers.3", "layers", "blocks.x", "h.3", None, 3]
)
def test_places_of_other_networks_are_no_blocks(name: object) -> None:
    assert hook_block(name) is None


OTHERS = ["sae-lens-layer-norm", "sae-lens-norm", "GatedAutoEncoder", "TopKSAE", "eai-sparsify"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_was_read_from_others_goes_on_to_sae_lens(tmp_path: Path, name: str) -> None:
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(4)) * 3
    sae, _ = load_pretrained(place(name))
    export(place(name), tmp_path / "out", "sae-lens")
    torch.testing.assert_close(load_pretrained(tmp_path / "out")[0](x), sae(x), atol=1e-4, rtol=1e-4)


def test_a_folder_of_sites_goes_as_one(tmp_path: Path) -> None:
    for t in (0.5, 1.0):
        random_sae(6, 12, 3).save_pretrained(tmp_path / "ours" / SITE.at(t).slug, {"site": SITE.at(t)})
    (tmp_path / "ours" / "_stream").mkdir()
    written = export(tmp_path / "ours", tmp_path / "theirs", "sdxl-unbox")
    assert [folder.name for folder in written] == [SITE.slug, SITE.at(1.0).slug]


def test_what_cannot_be_exported_gets_a_sentence(tmp_path: Path) -> None:
    sae = random_sae(6, 12, 3)
    sae.save_pretrained(tmp_path / "ours", {"signal": "output"})
    with pytest.raises(InputError, match="reads output; sdxl-unbox gives a block's update"):
        export(tmp_path / "ours", tmp_path / "theirs", "sdxl-unbox")
    with pytest.raises(InputError, match="--layout is 'other'; accepted: sae-lens, sdxl-unbox"):
        export(tmp_path / "ours", tmp_path / "theirs", "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already and not empty"):
        export(tmp_path / "ours", tmp_path / "full", "sae-lens")
    with pytest.raises(InputError, match="is no autoencoder, and none of its folders is one"):
        export(tmp_path / "full", tmp_path / "theirs", "sae-lens")
    with pytest.raises(InputError, match="There is no SAE folder"):
        export(tmp_path / "nowhere", tmp_path / "theirs", "sae-lens")
    assert WRITTEN.is_dir()
