"""Autoencoders that do not fit their block are noticed on the first pictures, before hours are spent."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.labeling.pipeline.config import SaeCheckConfig
from gazetteer.labeling.pipeline.sae_check import SaeCheck, report
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.model.maps import CodeTooLarge, encode_map
from tests.support.system.running import ROOT, label

A, B = Site("mid", "cond", 0.5), Site("mid", "cond", 1.0)


def perfect(width: int) -> SparseAutoencoder:
    """Reads and writes every coordinate of positive vectors by a feature of its own."""
    sae = SparseAutoencoder(SAEConfig(width, width, width)).requires_grad_(False)
    sae.encoder.copy_(torch.eye(width))
    sae.decoder.copy_(torch.eye(width))
    return sae


def blind(width: int) -> SparseAutoencoder:
    sae = perfect(width)
    sae.decoder.zero_()
    return sae


def updates(pictures: int = 3) -> torch.Tensor:
    return torch.rand(pictures, 4, 3, generator=torch.Generator().manual_seed(0))


def test_the_share_of_variance_is_measured_per_site_and_once() -> None:
    check = SaeCheck({A: perfect(3), B: perfect(3)}, SaeCheckConfig())
    check.watch(A, updates(), 2, 2)
    check.watch(B, updates(), 2, 2)
    assert check.open
    explained = check.close()
    assert explained == {A.slug: 1.0, B.slug: 1.0}
    assert not check.open
    assert report({A.slug: 0.25, B.slug: 0.5}) == (
        f"the SAEs explain 25% ({A.slug}) to 50% of the variance on the first pictures"
    )


def test_only_the_first_pictures_count() -> None:
    check = SaeCheck({A: perfect(3)}, SaeCheckConfig(pictures=2))
    check.watch(A, updates(1), 2, 2)
    check.watch(A, updates(3), 2, 2)
    check.watch(A, torch.full((1, 4, 3), torch.nan), 2, 2)
    assert check._sums[A].metrics().vectors == 8
    assert check.close() == {A.slug: 1.0}


def test_a_site_below_the_threshold_stops_the_run() -> None:
    check = SaeCheck({A: blind(3), B: perfect(3)}, SaeCheckConfig())
    for site in (A, B):
        check.watch(site, updates(), 2, 2)
    with pytest.raises(InputError, match=rf"The SAE of {A.slug} explains 0\.00 .* sae_check\.least=0\.1: it was"):
        check.close()
    allowed = SaeCheck({A: blind(3)}, SaeCheckConfig(least=-1.0))
    allowed.watch(A, updates(), 2, 2)
    assert allowed.close() == {A.slug: 0.0}
    assert not SaeCheck({A: blind(3)}, SaeCheckConfig(pictures=0)).open


@pytest.mark.parametrize(("settings", "said"), [({"pictures": -1}, "pictures"), ({"least": 1.5}, "at most 1")])
def test_wrong_settings_get_a_sentence(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=f"sae_check.*{said}"):
        SaeCheckConfig(**settings)


def test_saes_of_another_block_of_the_same_width_are_refused(tmp_path: Path) -> None:
    """As others publish them: nothing in the folder says where it belongs."""
    site, other = Site("up_blocks.1.attentions.0", "cond", 0.5), Site("down_blocks.0.attentions.0", "cond", 0.5)
    source = ROOT / "data" / "scenes" / "models" / "saes" / other.slug
    shutil.copytree(source, tmp_path / "saes" / site.slug)
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "saes" / site.slug / "config.json").write_text(json.dumps(config | {"site": None}))
    settings = [f"generation.blocks=[{site.block}]", "generation.branches=[cond]", "generation.t=[0.5]"]
    done = label(tmp_path / "run", *settings, "executor=serial", f"saes={tmp_path / 'saes'}")
    assert done.returncode == 2, done.stderr
    assert f"The SAE of {site.slug} explains" in done.stderr
    assert "sae_check.least=0.1" in done.stderr
    assert not (tmp_path / "run" / "images").exists()


def too_large(check: SaeCheck, x: torch.Tensor, sae: SparseAutoencoder) -> None:
    """A picture at A whose codes tables cannot hold."""
    check.watch(A, x, 2, 2)
    with pytest.raises(CodeTooLarge), check.heeding():
        encode_map(sae, x[0], 2, 2)


def test_codes_that_tables_cannot_hold_end_the_run_unless_a_picture_went_before() -> None:
    x = updates(1) * 1e6
    for poor, said in ((False, "On the first pictures a feature fires with"), (True, "explains -?0.00 of the var")):
        sae = blind(3) if poor else perfect(3)
        check = SaeCheck({A: sae}, SaeCheckConfig())
        too_large(check, x, sae)
        with pytest.raises(InputError, match=said):
            check.verdict(0)
    check = SaeCheck({A: sae}, SaeCheckConfig(pictures=0))
    assert check.verdict(0) == {}, "nothing was encoded, for another reason"
    too_large(check, x, sae)
    assert check.verdict(1) == {}, "another picture of the batch was"
    too_large(check, x, sae)
    assert check.verdict(0) == {}, "pictures went before"


def test_a_run_says_that_tables_cannot_hold_its_codes_and_that_its_model_is_another(tmp_path: Path) -> None:
    """The same reconstruction by codes a million times larger, of what says that it was trained on another model."""
    site = Site("up_blocks.1.attentions.0", "cond", 0.5)
    source = ROOT / "data" / "scenes" / "models" / "saes" / site.slug
    sae, config = load_pretrained(source)
    for tensor, factor in ((sae.encoder, 1e6), (sae.decoder, 1e-6)):
        tensor.mul_(factor)
    other = f"sha256:{'0' * 64}"
    for name in ("cond", "uncond"):
        own = {"site": Site(site.block, name, 0.5), "signal": "update", "model_digest": other}
        sae.save_pretrained(tmp_path / "saes" / f"{site.block}-{name}-t0.50", own)
    assert config["model_digest"] != other
    settings = [f"generation.blocks=[{site.block}]", "generation.t=[0.5]", "executor=serial"]
    done = label(tmp_path / "run", *settings, f"saes={tmp_path / 'saes'}")
    assert done.returncode == 2, done.stderr
    assert re.search(
        rf"On the first pictures a feature of the SAE of {site.block}-\S+ fires with [\d,]+, more", done.stderr
    ), done.stderr
    assert "its encoder, latent bias and threshold divided by a number" in done.stderr
    assert done.stderr.count("trained on another model than ") == 1
    assert "the SAEs of 2 of 2 sites say" in done.stderr and f" on {other[:19]}…" in done.stderr
    assert not (tmp_path / "run" / "images").exists()
    done = label(tmp_path / "plain", *settings)
    assert "another model" not in done.stderr
