"""Autoencoders that the other packages themselves wrote (`written/README.md`), against what those packages answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gazetteer.sae.formats.registry import recognise
from gazetteer.sae.model.checkpoint import load_pretrained

WRITTEN = Path(__file__).parent / "written"
FORMAT = {"sae-lens": "sae-lens", "eai-sparsify": "sparsify"}


def place(name: str) -> Path:
    folder = WRITTEN / name
    return folder / "sae.pt" if (folder / "sae.pt").exists() else folder / "sae"


@pytest.mark.parametrize("name", sorted(path.name for path in WRITTEN.iterdir() if path.is_dir()))
def test_it_reconstructs_as_its_own_package(name: str) -> None:
    there = load_file(WRITTEN / name / "expected.safetensors")
    sae, config = load_pretrained(place(name))
    torch.testing.assert_close(sae(there["x"]), there["x_hat"], atol=2e-4, rtol=1e-4)
    foreign = recognise(place(name))
    assert foreign is not None
    assert config["layout"] == foreign.name
    prefix = next((one for one in FORMAT if name.startswith(one)), None)
    assert foreign.name == FORMAT[prefix] if prefix else foreign.name in ("dictionary_learning", "overcomplete")


@pytest.mark.parametrize("name", sorted(path.name for path in WRITTEN.iterdir() if path.is_dir()))
def test_saved_as_ours_it_stays_the_same(name: str, tmp_path: Path) -> None:
    sae, _ = load_pretrained(place(name))
    sae.save_pretrained(tmp_path / "ours")
    again, config = load_pretrained(tmp_path / "ours")
    assert "layout" not in config
    assert again.config == sae.config
    x = load_file(WRITTEN / name / "expected.safetensors")["x"]
    assert torch.equal(again(x), sae(x))
