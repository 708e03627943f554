"""Autoencoders that the other packages themselves wrote (`written/README.md`), against what those packages answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gazetteer.sae.layouts.registry import recognise
from gazetteer.sae.model.checkpoint import load_pretrained

WRITTEN = Path(__file__).parent / "written"
LAYOUT = {"sae-lens": "sae-lens", "eai-sparsify": "sparsify"}


def place(name: str) -> Path:
    folder = WRITTEN / name
    return folder / "sae.pt" if (folder / "sae.pt").exists() else folder / "sae"


@pytest.mark.parametrize("name", sorted(path.name for path in WRITTEN.iterdir() if path.is_dir()))
def test_it_reconstructs_as_its_own_package(name: str) -> None:
    there = load_file(WRITTEN / name / "expected.safetensors")
    sae, config = load_pretrained(place(name))
    torch.testing.assert_close(sae(there["x"]), there["x_hat"], atol=2e-4, rtol=1e-4)
    layout = recognise(place(name))
    assert layout is not None
    assert config["layout"] == layout.name
    prefix = next((one for one in LAYOUT if name.startswith(one)), None)
    assert layout.name == LAYOUT[prefix] if prefix else layout.name in ("dictionary_learning", "overcomplete")


@pytest.mark.parametrize("name", sorted(path.name for path in WRITTEN.iterdir() if path.is_dir()))
def test_saved_as_ours_it_stays_the_same(name: str, tmp_path: Path) -> None:
    sae, _ = load_pretrained(place(name))
    sae.save_pretrained(tmp_path / "ours")
    again, config = load_pretrained(tmp_path / "ours")
    assert "layout" not in config
    assert again.config == sae.config
    x = load_file(WRITTEN / name / "expected.safetensors")["x"]
    assert torch.equal(again(x), sae(x))
