"""Autoencoders that do not fit their block are noticed on the first pictures, before hours are spent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.labeling.pipeline.config import SaeCheckConfig
from gazetteer.labeling.pipeline.sae_check import SaeCheck, report
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
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
