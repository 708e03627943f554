"""Autoencoders without a fixed k: every formula written densely, from files as saev, Prisma and SAELens write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.parts import MOST_ACTIVE, gated
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_pretrained
from gazetteer.sae.model.files import read_config
from gazetteer.sae.model.maps import encode_map
from gazetteer.sae.model.shape import SAEConfig
from gazetteer.sae.model.threshold import reading_notes
from tests.sae.formats.test_topk_formats import B_DEC, B_ENC, W_DEC, W_ENC, D, N, X, near, numbers, write_lens

STATE = {"W_enc": W_ENC.T.contiguous(), "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}


def write_saev(path: Path, activation: str, state: dict[str, Tensor] | None = None, **params: Any) -> None:
    """As `saev.nn.dump` of schema 5 writes it: a line of JSON, then a state dict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"schema": 5, "cfg": {"d_model": D, "d_sae": N, "activation": {"cls": activation, "params": params}}}
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(state or STATE, file)


def dense(z: Tensor) -> Tensor:
    return z @ W_DEC + B_DEC


def test_relu_of_saev(tmp_path: Path) -> None:
    write_saev(tmp_path / "sae.pt", "Relu", sparsity={"coeff": 4e-4})
    for place in (tmp_path, tmp_path / "sae.pt"):
        sae, config = load_pretrained(place)
        near(sae(X), dense((X @ W_ENC.T + B_ENC).relu()))
        assert (config["layout"], config["activation"], config["k"]) == ("saev", "relu", N)


def test_top_k_and_batch_top_k_of_saev(tmp_path: Path) -> None:
    a = X @ W_ENC.T + B_ENC
    write_saev(tmp_path / "topk.pt", "TopK", top_k=3)
    kept = a.topk(3, dim=1)
    near(
        load_pretrained(tmp_path / "topk.pt")[0](X),
        dense(torch.zeros_like(a).scatter(1, kept.indices, kept.values.relu())),
    )
    write_saev(tmp_path / "batch.pt", "BatchTopK", {**STATE, "activation.threshold": torch.tensor(1.5)}, top_k=3)
    near(load_pretrained(tmp_path / "batch.pt")[0](X), dense(a * (a > 1.5)))


def write_early_saev(path: Path, header: dict[str, Any]) -> None:
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(STATE, file)


def test_saev_before_it_had_schemas(tmp_path: Path) -> None:
    write_early_saev(tmp_path / "sae.pt", {"d_vit": D, "exp_factor": 2, "sparsity_coeff": 4e-4, "seed": 0})
    sae, config = load_pretrained(tmp_path)
    near(sae(X), dense(((X - B_DEC) @ W_ENC.T + B_ENC).relu()))
    assert "less their mean" in config["differs"]


@pytest.mark.parametrize("name", ["Relu", "TopK", "BatchTopK"])
def test_saev_of_its_first_schema_subtracts_its_bias(tmp_path: Path, name: str) -> None:
    """`dump` of the commits 5951e84 to d991de3, of April to July 2025."""
    config = {"d_vit": D, "exp_factor": 2, "seed": 0, **({} if name == "Relu" else {"top_k": 3})}
    header = {"schema": 1, "cfg": config, "cls": name, "commit": "5951e84", "lib": "0.1.0"}
    write_early_saev(tmp_path / "sae.pt", header)
    a = (X - B_DEC) @ W_ENC.T + B_ENC
    kept = a.topk(3, dim=1)
    z = a.relu() if name == "Relu" else torch.zeros_like(a).scatter(1, kept.indices, kept.values.relu())
    sae, stated = load_pretrained(tmp_path)
    near(sae(X), dense(z))
    site = Site("mid_block", "cond", 0.5)
    note = reading_notes({"*": str(tmp_path / "sae.pt")}, [site])[site.slug]
    assert "less their mean" in note and "31 July 2025" in note
    assert ("k was of a whole batch" in note) == ("its file has no threshold" in note) == (name == "BatchTopK")
    assert stated["original"] == header


def test_saev_of_later_schemas_subtracts_nothing_whatever_else_its_header_holds(tmp_path: Path) -> None:
    config = {"d_model": D, "activation": {"cls": "Relu", "params": {}}}
    write_early_saev(tmp_path / "sae.pt", {"schema": 2, "cfg": config, "cls": "Relu", "subtracts": True})
    sae, stated = load_pretrained(tmp_path)
    near(sae(X), dense((X @ W_ENC.T + B_ENC).relu()))
    assert "differs" not in stated


class VisionModelSAERunnerConfig:
    """Stands for Prisma's own class in a file of its kind."""

    def __init__(self) -> None:
        self.d_in, self.lr, self.device = D, 1e-3, "cuda"


VisionModelSAERunnerConfig.__module__ = "vit_prisma.sae.config"


def write_prisma(folder: Path, state: dict[str, Tensor], name: str = "n_images_2600058.pt", **changes: Any) -> None:
    """``config.json`` and a file that holds an object of a class beside the state dict."""
    import sys
    import types

    folder.mkdir(parents=True)
    config = {
        "architecture": "standard",
        "activation_fn_str": "relu",
        "activation_fn_kwargs": {},
        "d_in": D,
        "d_sae": N,
    }
    (folder / "config.json").write_text(
        json.dumps(config | {"normalize_activations": None, "is_transcoder": False} | changes)
    )
    module = types.ModuleType("vit_prisma.sae.config")
    module.VisionModelSAERunnerConfig = VisionModelSAERunnerConfig  # type: ignore[attr-defined]
    sys.modules.update({one: types.ModuleType(one) for one in ("vit_prisma", "vit_prisma.sae")})
    sys.modules["vit_prisma.sae.config"] = module
    try:
        torch.save({"cfg": VisionModelSAERunnerConfig(), "state_dict": state}, folder / name)
    finally:
        for one in ("vit_prisma", "vit_prisma.sae", "vit_prisma.sae.config"):
            del sys.modules[one]


def test_prisma(tmp_path: Path) -> None:
    write_prisma(tmp_path / "relu", STATE)
    sae, config = load_pretrained(tmp_path / "relu")
    near(sae(X), dense(((X - B_DEC) @ W_ENC.T + B_ENC).relu()))
    assert config["layout"] == "prisma"
    write_prisma(tmp_path / "topk", STATE, "weights.pt", activation_fn_str="topk", activation_fn_kwargs={"k": 4})
    assert load_pretrained(tmp_path / "topk")[0].config.k == 4
    write_prisma(tmp_path / "norm", STATE, normalize_activations="layer_norm")
    centre, scale = X.mean(dim=1, keepdim=True), X.std(dim=1, keepdim=True)
    inner = dense((((X - centre) / (scale + 1e-5) - B_DEC) @ W_ENC.T + B_ENC).relu())
    near(load_pretrained(tmp_path / "norm")[0](X), inner * scale + centre)
    write_prisma(tmp_path / "transcoder", STATE, is_transcoder=True)
    with pytest.raises(InputError, match="asks for is_transcoder"):
        read_config(tmp_path / "transcoder")


def test_the_newest_of_prismas_checkpoints_is_read(tmp_path: Path) -> None:
    write_prisma(tmp_path / "sae", STATE, "n_images_900.pt")
    torch.save({"state_dict": {**STATE, "b_dec": B_DEC + 1}}, tmp_path / "sae" / "n_images_1000.pt")
    near(load_pretrained(tmp_path / "sae")[0].bias, B_DEC + 1)
    near(load_pretrained(tmp_path / "sae" / "n_images_900.pt")[0].bias, B_DEC)


def test_gated_is_the_jump_relu_that_it_says(tmp_path: Path) -> None:
    gate, magnitude, log_scale = numbers(N, seed=6), numbers(N, seed=7), numbers(N, seed=8) / 3
    products = (X - B_DEC) @ W_ENC.T
    z = (products + gate > 0) * (products * log_scale.exp() + magnitude).relu()
    sae = SparseAutoencoder(SAEConfig(D, N, N, latent_bias=True, activation="jumprelu"))
    sae.load_state_dict(gated(W_ENC, W_DEC, B_DEC, gate, magnitude, log_scale).tensors())
    near(sae(X), dense(z))
    state = {"W_enc": W_ENC.T.contiguous(), "W_dec": W_DEC, "b_dec": B_DEC, "b_enc": B_ENC}
    state |= {"b_gate": gate, "b_mag": magnitude, "r_mag": log_scale}
    write_prisma(tmp_path / "sae", state, architecture="gated")
    near(load_pretrained(tmp_path / "sae")[0](X), dense(z))


def test_a_code_has_as_many_slots_as_its_busiest_cell_needs_and_what_is_cut_is_counted() -> None:
    sae = SparseAutoencoder(SAEConfig(D, N, 4, latent_bias=True, activation="relu"))
    sae.load_state_dict({"encoder": W_ENC, "decoder": W_DEC, "bias": B_DEC, "latent_bias": B_ENC})
    active = ((X - B_DEC) @ W_ENC.T + B_ENC > 0).sum(dim=1)
    codes, cut = sae.encode_and_count(X)
    assert torch.equal(cut, (active - 4).clamp_min(0))
    assert int(cut.sum()) > 0
    assert bool((codes.values[:, :-1] >= codes.values[:, 1:]).all()), "the strongest are kept"
    wide = SparseAutoencoder(SAEConfig(D, N, N, latent_bias=True, activation="relu"))
    wide.load_state_dict(sae.state_dict())
    quietest = int(active.argmin())
    one = encode_map(wide, X[quietest : quietest + 1], 1, 1)
    assert (one.k, one.cut) == (int(active.min()), 0)
    assert encode_map(wide, X, 4, 5).k == int(active.max())
    assert encode_map(sae, X, 4, 5).cut == int(cut.sum())


def test_the_largest_so_many_are_kept_of_what_has_no_k(tmp_path: Path) -> None:
    wide = 2 * MOST_ACTIVE
    tensors = {"W_enc": numbers(D, wide, seed=1), "W_dec": numbers(wide, D, seed=2), "b_enc": torch.zeros(wide)}
    write_lens(tmp_path / "sae", architecture="standard", d_sae=wide, k=None)
    save_file({**tensors, "b_dec": B_DEC}, tmp_path / "sae" / "sae_weights.safetensors")
    assert read_config(tmp_path / "sae")["k"] == MOST_ACTIVE


@pytest.mark.parametrize(
    "options", [{"activation": "gelu"}, {"normalise": "batch"}, {"activation": "relu", "batch_topk": True}]
)
def test_options_that_are_no_formula_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"An SAE('s activation|'s normalise)? is (one of|either)"):
        SAEConfig(D, N, 3, **options)


def test_a_unit_norm_is_taken_and_given_back() -> None:
    sae = SparseAutoencoder(SAEConfig(D, N, N, latent_bias=True, activation="relu", normalise="unit"))
    sae.load_state_dict({"encoder": W_ENC, "decoder": W_DEC, "bias": B_DEC, "latent_bias": B_ENC})
    length = X.norm(dim=1, keepdim=True)
    near(sae(X), dense(((X / length - B_DEC) @ W_ENC.T + B_ENC).relu()) * length)


@pytest.mark.parametrize(
    "content", [b"{broken", b'{"schema": 9}\n', b"[1]\n", b'{"schema": 5, "cfg": {"activation": {"cls": "Gelu"}}}\n']
)
def test_what_saev_cannot_have_written_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sae.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"sae\.pt"):
        load_pretrained(tmp_path / "sae.pt")
