"""What a file holds or states beside the formula: taken into account, refused or said, never dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.registry import recognise
from gazetteer.sae.model.checkpoint import load_pretrained, load_site_saes
from gazetteer.sae.model.files import read_config
from gazetteer.sae.model.threshold import reading_notes
from tests.sae.formats.test_damaged import WRITERS, rewritten
from tests.sae.formats.test_formulas import STATE, write_prisma, write_saev
from tests.sae.formats.test_topk_formats import (
    B_DEC,
    B_ENC,
    W_DEC,
    W_ENC,
    D,
    K,
    N,
    X,
    near,
    numbers,
    write_lens,
    write_sparsify,
)
from tests.sae.formats.test_written import WRITTEN
from tests.sae.model.test_autoencoder import random_sae

S = 6
"""Width and features of square weights, which no shape tells from their transpose."""
SITE = Site("up_blocks.1.attentions.1", "cond", 0.5, signal="output")


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_tensor_that_the_formula_does_not_use_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write, weights = WRITERS[name]
    write(tmp_path / "sae")

    def add(tensors: dict[str, Tensor]) -> None:
        tensors["W_skip"] = torch.eye(D)

    rewritten(tmp_path / "sae" / weights, add)
    with pytest.raises(InputError, match=r"holds W_skip, which the formula .* does not use"):
        load_pretrained(tmp_path / "sae" / weights)


def test_the_skip_of_a_transcoder_that_says_so_is_said(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "sae", transcode=True, skip_connection=True)
    path = tmp_path / "sae" / "sae.safetensors"
    save_file({**load_file(path), "W_skip": torch.eye(D)}, path)
    assert "skip connection" in load_pretrained(tmp_path / "sae")[1]["differs"]


def test_factors_of_old_sae_lens_files_count_unless_all_are_one(tmp_path: Path) -> None:
    write_lens(tmp_path / "sae", architecture="standard", finetuning_scaling_factor=True)
    path = tmp_path / "sae" / "sae_weights.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "scaling_factor": torch.ones(N)}, path)
    near(load_pretrained(tmp_path / "sae")[0](X), ((X - B_DEC) @ W_ENC.T + B_ENC).relu() @ W_DEC + B_DEC)
    save_file({**tensors, "scaling_factor": torch.linspace(0.5, 2, N)}, path)
    with pytest.raises(InputError, match="holds scaling_factor"):
        load_pretrained(tmp_path / "sae")


def test_sae_lens_from_before_it_named_architectures_is_its_standard_one(tmp_path: Path) -> None:
    write_lens(tmp_path / "sae", architecture=None, activation_fn_str="relu", hook_point="x", k=None)
    near(load_pretrained(tmp_path / "sae")[0](X), ((X - B_DEC) @ W_ENC.T + B_ENC).relu() @ W_DEC + B_DEC)


@pytest.mark.parametrize(
    ("write", "changes", "sentence"),
    [
        (write_lens, {"architecture": "standard", "activation_fn": "tanh-relu"}, "asks for activation_fn=tanh-relu"),
        (write_lens, {"architecture": "abstopk"}, "asks for architecture=abstopk"),
        (
            write_lens,
            {"normalize_activations": "whitening"},
            "=whitening; accepted are none, expected_average_only_in, l",
        ),
        (write_lens, {"k": "3"}, "k as whole numbers"),
        (write_sparsify, {"signed": True}, "asks for signed"),
        (write_sparsify, {"activation": "groupmax"}, "asks for activation=groupmax"),
        (write_sparsify, {"k": "3"}, "k as whole numbers"),
    ],
)
def test_what_changes_the_codes_and_is_not_computed_here_is_refused(
    tmp_path: Path, write: Any, changes: dict[str, Any], sentence: str
) -> None:
    write(tmp_path / "sae", **changes)
    with pytest.raises(InputError, match=sentence):
        read_config(tmp_path / "sae")


SWITCHES = [
    *(("sae-lens", key) for key in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm")),
    *(("sparsify", key) for key in ("signed", "transcode", "skip_connection", "input_unit_norm", "batch_topk")),
    ("SAeUron", "sample_topk"), ("prisma", "is_transcoder"),
]  # fmt: skip


@pytest.mark.parametrize("value", ["false", "true", 0, 1, []])
@pytest.mark.parametrize(("name", "key"), SWITCHES)
def test_what_switches_the_formula_is_true_or_false(tmp_path: Path, name: str, key: str, value: Any) -> None:
    WRITERS[name][0](tmp_path / "sae")
    path = next((tmp_path / "sae").glob("*.json"))
    stated = json.loads(path.read_text())
    path.write_text(json.dumps(stated | {key: value}))
    with pytest.raises(InputError, match=rf"{path.name}: {key} must be true or false, not "):
        read_config(tmp_path / "sae")
    path.write_text(json.dumps(stated | {key: False}))
    read_config(tmp_path / "sae")


def test_the_factor_and_the_schema_are_numbers_and_our_own_switches_switches(tmp_path: Path) -> None:
    write_lens(tmp_path / "lens", normalize_activations="expected_average_only_in")
    for content, says in (
        ({"scaling_factor": True}, "must be a positive number, not True"),
        ({"scaling_factor": 2.0, "has_whitening": "false"}, "has_whitening must be true or false, not 'false'"),
    ):
        (tmp_path / "lens" / "activation_scaler.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=says):
            read_config(tmp_path / "lens")
    (tmp_path / "sae.pt").write_bytes(b'{"schema": true, "cls": "Relu", "cfg": {}}\n')
    with pytest.raises(InputError, match="asks for schema=True"):
        read_config(tmp_path / "sae.pt")
    random_sae(6, 12, 3).save_pretrained(tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transcoder": "false"}))
    with pytest.raises(InputError, match="transcoder must be true or false, not 'false'"):
        load_pretrained(tmp_path / "own")


def test_a_transcoder_of_scaled_activations_is_scaled(tmp_path: Path) -> None:
    folder, factor = tmp_path / "sae", 4.0
    scaled = {"normalize_activations": "expected_average_only_in", "apply_b_dec_to_input": False}
    write_lens(folder, architecture="transcoder", d_out=D, **scaled)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
    sae = load_pretrained(folder)[0]
    near(sae.preactivations(X), factor * X @ W_ENC.T + B_ENC)
    near(sae(X), ((factor * X @ W_ENC.T + B_ENC).relu() @ W_DEC + B_DEC) / factor)


def test_a_transcoder_that_normalises_says_what_differs(tmp_path: Path) -> None:
    write_lens(tmp_path / "sae", architecture="transcoder", d_out=D, normalize_activations="layer_norm")
    assert "scaled back" in read_config(tmp_path / "sae")["differs"]


def test_prisma_takes_its_own_defaults_and_no_k_of_ours(tmp_path: Path) -> None:
    write_prisma(tmp_path / "bare", STATE)
    path = tmp_path / "bare" / "config.json"
    config = json.loads(path.read_text())
    del config["normalize_activations"]
    path.write_text(json.dumps(config))
    assert read_config(tmp_path / "bare")["normalise"] == "layer_norm"
    write_prisma(tmp_path / "topk", STATE, activation_fn_str="topk")
    with pytest.raises(InputError, match="k as whole numbers"):
        read_config(tmp_path / "topk")
    options = {"k": 3, "postact_fn": "identity"}
    write_prisma(tmp_path / "identity", STATE, activation_fn_str="topk", activation_fn_kwargs=options)
    with pytest.raises(InputError, match="asks for activation_fn_kwargs=postact_fn"):
        read_config(tmp_path / "identity")


def test_batch_top_k_of_saev_before_it_learned_a_threshold_is_top_k(tmp_path: Path) -> None:
    write_saev(tmp_path / "sae.pt", "BatchTopK", top_k=K)
    sae, config = load_pretrained(tmp_path / "sae.pt")
    a = X @ W_ENC.T + B_ENC
    kept = a.topk(K, dim=1)
    near(sae(X), torch.zeros_like(a).scatter(1, kept.indices, kept.values.relu()) @ W_DEC + B_DEC)
    assert (config["activation"], config["k"]) == ("topk", K)
    site = Site("mid_block", "cond", 0.5)
    assert "its file has no threshold" in reading_notes({"*": str(tmp_path / "sae.pt")}, [site])[site.slug]


def test_two_ks_of_dictionary_learning_are_refused(tmp_path: Path) -> None:
    WRITERS["dictionary_learning"][0](tmp_path / "sae")
    path = tmp_path / "sae" / "config.json"
    config = json.loads(path.read_text())
    config["trainer"]["k"] += 1
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"was trained with k=\d+, and its config.json says k="):
        load_pretrained(tmp_path / "sae")


def test_an_encoder_of_overcomplete_without_its_relu_is_refused(tmp_path: Path) -> None:
    with ZipFile(WRITTEN / "TopKSAE" / "sae.pt") as there, ZipFile(tmp_path / "sae.pt", "w") as here:
        for name in there.namelist():
            relu, identity = b"ctorch.nn.modules.activation\nReLU\n", b"ctorch.nn.modules.linear\nIdentity\n"
            here.writestr(name, there.read(name).replace(relu, identity))
    with pytest.raises(InputError, match="asks for the output activation Identity"):
        load_pretrained(tmp_path / "sae.pt")


def write_square(folder: Path, layout: str, dtype: torch.dtype) -> None:
    """Square weights in a number type, in one layout, by the names and orientations of its public loader."""
    folder.mkdir()
    w, v, b, c = (one.to(dtype) for one in (W, V, B, C))
    by_rows = {"W_enc": w.T.contiguous(), "W_dec": v, "b_enc": c, "b_dec": b}
    if layout == "sdxl-unbox":
        state = {"encoder.weight": w, "decoder.weight": v.T, "pre_bias": b, "latent_bias": c}
        torch.save(state, folder / "state_dict.pth")
        (folder / "config.json").write_text(json.dumps({"d_model": S, "n_dirs_local": S, "k": 2, "new_key": [1]}))
    elif layout in ("sparsify", "SAeUron"):
        tensors = {"encoder.weight": w, "encoder.bias": c, "W_dec": v, "b_dec": b}
        save_file(tensors, folder / "sae.safetensors")
        more = {"batch_topk": False, "sample_topk": False, "input_unit_norm": False} if layout == "SAeUron" else {}
        (folder / "cfg.json").write_text(json.dumps({"d_in": S, "num_latents": S, "k": 2, "new_key": {}} | more))
    elif layout == "sae-lens":
        save_file(by_rows, folder / "sae_weights.safetensors")
        stated = {"architecture": "topk", "d_in": S, "d_sae": S, "k": 2, "metadata": {"sae_lens_version": "6.54.12"}}
        (folder / "cfg.json").write_text(json.dumps(stated | {"new_key": None}))
    elif layout == "dictionary_learning":
        state = {"encoder.weight": w, "encoder.bias": c, "decoder.weight": v.T, "b_dec": b, "k": torch.tensor(2)}
        torch.save({**state, "threshold": torch.tensor(-1.0)}, folder / "ae.pt")
        trainer = {"dict_class": "AutoEncoderTopK", "k": 2, "new_key": 1}
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"d_submodule": S}}))
    elif layout == "saev":
        activation = {"cls": "TopK", "params": {"top_k": 2, "aux": {"cls": "AuxK"}}}
        header = {"schema": 5, "cfg": {"d_model": S, "d_sae": S, "activation": activation}, "lib": "9"}
        with (folder / "sae.pt").open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            torch.save(by_rows, file)
    else:
        stated = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}
        stated |= {"d_in": S, "d_sae": S, "normalize_activations": "none"}
        stated |= {"dtype": {"__type__": "torch.dtype", "value": "torch.float32"}}
        (folder / "config.json").write_text(json.dumps(stated))
        torch.save({"state_dict": by_rows}, folder / "n_images_130.pt")


W, V, B, C = numbers(S, S, seed=11), numbers(S, S, seed=12), numbers(S, seed=13), numbers(S, seed=14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "layout", ["sdxl-unbox", "sparsify", "SAeUron", "sae-lens", "dictionary_learning", "saev", "prisma"]
)
def test_square_weights_of_any_number_type_are_not_transposed(tmp_path: Path, layout: str, dtype: torch.dtype) -> None:
    write_square(tmp_path / "sae", layout, dtype)
    w, v, b, c = (one.to(dtype).float() for one in (W, V, B, C))
    x = numbers(30, S, seed=15)
    a = (x if layout == "saev" else x - b) @ w.T + c
    kept = a.topk(2, dim=1)
    z = torch.zeros_like(a).scatter(1, kept.indices, kept.values.relu())
    foreign = recognise(tmp_path / "sae")
    assert foreign is not None
    signal = "" if layout in ("SAeUron", "sdxl-unbox") else "output"
    site = SITE if layout != "sdxl-unbox" else Site(SITE.block, "cond", 0.5)
    sae = load_site_saes({"*": str(tmp_path / "sae")}, [site], signal=signal)[site]
    codes = sae.encode(x)
    found = torch.zeros_like(a).scatter(1, codes.indices.long(), codes.values)
    near(found, z)
    near(sae(x), z @ v + b)
