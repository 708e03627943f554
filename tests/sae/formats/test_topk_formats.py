"""Autoencoders in the layouts of other projects: files as those write them, against their formulas written densely."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.formats.format import hook_block
from gazetteer.sae.model.checkpoint import load_pretrained, load_site_saes
from gazetteer.sae.model.files import read_config

D, N, K = 6, 14, 3
SITE = Site("mid_block.attentions.0", "cond", 0.5)


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


W_ENC, W_DEC, B_DEC, B_ENC = numbers(N, D, seed=1), numbers(N, D, seed=2), numbers(D, seed=3), numbers(N, seed=4)
X = numbers(20, D, seed=5) * 2


def reconstruction(preactivations: Tensor, decoder: Tensor = W_DEC) -> Tensor:
    """TopK, ReLU and decoder, densely: [batch, n] -> [batch, d]."""
    kept = preactivations.topk(K, dim=1)
    z = torch.zeros_like(preactivations).scatter_(1, kept.indices, kept.values.relu())
    return z @ decoder + B_DEC


def near(found: Tensor, expected: Tensor) -> None:
    """Equal up to what folding factors into weights may round."""
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def write_unbox(folder: Path, wrapped: bool = True, **changes: object) -> None:
    folder.mkdir(parents=True)
    config = {"n_dirs_local": N, "d_model": D, "k": K, "auxk": 256, "dead_steps_threshold": 2441}
    (folder / "config.json").write_text(json.dumps(config | changes))
    state = {
        "pre_bias": B_DEC,
        "latent_bias": B_ENC,
        "stats_last_nonzero": torch.zeros(N, dtype=torch.long),
        "encoder.weight": W_ENC,
        "decoder.weight": W_DEC.T,
    }
    torch.save({"state_dict": state} if wrapped else state, folder / "state_dict.pth")


def write_sparsify(folder: Path, **changes: object) -> None:
    folder.mkdir(parents=True)
    config = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": N, "k": K}
    config |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D}
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    tensors = {"encoder.weight": W_ENC, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    save_file(tensors, folder / "sae.safetensors")


def write_lens(folder: Path, **changes: object) -> None:
    folder.mkdir(parents=True)
    config = {"d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True, "k": K}
    config |= {"normalize_activations": "none", "reshape_activations": "none", "metadata": {}, "architecture": "topk"}
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    tensors = {"W_enc": W_ENC.T.contiguous(), "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
    save_file(tensors, folder / "sae_weights.safetensors")


@pytest.mark.parametrize("wrapped", [True, False])
def test_sdxl_unbox(tmp_path: Path, wrapped: bool):
    write_unbox(tmp_path / "sae", wrapped)
    sae, config = load_pretrained(tmp_path / "sae")
    torch.testing.assert_close(sae(X), reconstruction((X - B_DEC) @ W_ENC.T + B_ENC))
    assert (config["layout"], config["d"], config["n"], config["k"]) == ("sdxl-unbox", D, N, K)
    assert config["original"]["auxk"] == 256


def test_sparsify(tmp_path: Path):
    write_sparsify(tmp_path / "sae")
    sae, config = load_pretrained(tmp_path / "sae")
    torch.testing.assert_close(sae(X), reconstruction((X - B_DEC) @ W_ENC.T + B_ENC))
    assert config["layout"] == "sparsify"


def test_sparsify_without_a_number_of_features_has_a_multiple_of_its_width(tmp_path: Path):
    write_sparsify(tmp_path / "sae", num_latents=0, expansion_factor=2)
    assert read_config(tmp_path / "sae")["n"] == 12
    with pytest.raises(InputError, match=r"encoder is \[14, 6\], but its configuration says \[12, 6\]"):
        load_pretrained(tmp_path / "sae")


def test_sae_lens(tmp_path: Path):
    write_lens(tmp_path / "plain")
    sae, config = load_pretrained(tmp_path / "plain")
    torch.testing.assert_close(sae(X), reconstruction((X - B_DEC) @ W_ENC.T + B_ENC))
    assert config["layout"] == "sae-lens"


def test_sae_lens_without_its_bias_on_the_input(tmp_path: Path):
    write_lens(tmp_path / "sae", apply_b_dec_to_input=False)
    near(load_pretrained(tmp_path / "sae")[0](X), reconstruction(X @ W_ENC.T + B_ENC))


def test_sae_lens_scaled_by_its_decoder(tmp_path: Path):
    write_lens(tmp_path / "sae", rescale_acts_by_decoder_norm=True)
    norms = W_DEC.norm(dim=1)
    expected = reconstruction(((X - B_DEC) @ W_ENC.T + B_ENC) * norms, W_DEC / norms[:, None])
    near(load_pretrained(tmp_path / "sae")[0](X), expected)


@pytest.mark.parametrize("options", [{}, {"apply_b_dec_to_input": False}, {"rescale_acts_by_decoder_norm": True}])
@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_sae_lens_of_scaled_activations(tmp_path: Path, factor: float, options: dict):
    """Its weights live where vectors are factor times as long: what it makes of factor · x is factor · x̂."""
    folder = tmp_path / "sae"
    write_lens(folder, normalize_activations="expected_average_only_in", **options)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor, "has_whitening": False}))
    scaled, norms = factor * X, W_DEC.norm(dim=1)
    products = (scaled if options.get("apply_b_dec_to_input") is False else scaled - B_DEC) @ W_ENC.T + B_ENC
    if "rescale_acts_by_decoder_norm" in options:
        expected = reconstruction(products * norms, W_DEC / norms[:, None])
    else:
        expected = reconstruction(products)
    near(load_pretrained(folder)[0](X), expected / factor)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 1.0}))
    assert read_config(folder)["activation_scale"] == 1.0


@pytest.mark.parametrize(
    ("normalised", "scaler", "sentence"),
    [
        ("expected_average_only_in", None, "the factor is not there"),
        ("expected_average_only_in", {"scaling_factor": None}, "the factor is not there"),
        ("expected_average_only_in", {"scaling_factor": "2"}, "must be a positive number, not '2'"),
        ("expected_average_only_in", {"scaling_factor": -2.0}, "must be a positive number, not -2.0"),
        ("expected_average_only_in", {"scaling_factor": 2.0, "has_whitening": True}, "asks for whitening"),
        ("expected_average_only_in", [2.0], "must hold an object"),
        ("none", {"scaling_factor": 2.0}, "cfg.json says they are not"),
    ],
)
def test_a_scale_that_is_not_known_is_refused(tmp_path: Path, normalised: str, scaler: object, sentence: str):
    write_lens(tmp_path / "sae", normalize_activations=normalised)
    if scaler is not None:
        (tmp_path / "sae" / "activation_scaler.json").write_text(json.dumps(scaler))
    with pytest.raises(InputError, match=sentence):
        load_pretrained(tmp_path / "sae")


@pytest.mark.parametrize("write", [write_sparsify, write_lens])
def test_what_does_not_say_that_it_reads_updates_is_refused_until_the_user_does(tmp_path: Path, write):
    write(tmp_path / SITE.slug)
    with pytest.raises(InputError, match=r"does not say what it reads.*sae_check.signal=update"):
        load_site_saes(tmp_path, [SITE])
    # saved as ours, it still says no more than it did; once its user has said what it reads, that is kept
    untold = load_pretrained(tmp_path / SITE.slug)[0]
    untold.save_pretrained(tmp_path / "untold" / SITE.slug, {"site": SITE})
    with pytest.raises(InputError, match="does not say what it reads"):
        load_site_saes(tmp_path / "untold", [SITE])
    sae = load_site_saes(tmp_path / "untold", [SITE], signal="update")[SITE]
    sae.save_pretrained(tmp_path / "told" / SITE.slug, {"site": SITE})
    assert torch.equal(load_site_saes(tmp_path / "told", [SITE])[SITE](X), untold(X))
    sae.save_pretrained(tmp_path / "out" / SITE.slug, {"site": SITE, "signal": "output"})
    with pytest.raises(InputError, match=r"reads a block's output, and mid_block.* gives its update"):
        load_site_saes(tmp_path / "out", [SITE], signal="update")


def test_it_serves_a_site_of_what_it_says_that_it_reads(tmp_path: Path):
    """SAeUron's code captures outputs, which its files show; any file may say it under ``signal``."""
    output = dataclasses.replace(SITE, signal="output")
    write_sparsify(tmp_path / "theirs" / "unet.mid_block.attentions.0", batch_topk=False, sample_topk=False)
    saes = {"*": str(tmp_path / "theirs" / "unet.mid_block.attentions.0")}
    assert load_site_saes(saes, [output])[output].signal == "output"
    with pytest.raises(InputError, match=r"reads a block's output, and .* gives its update"):
        load_site_saes(saes, [SITE], signal="update")
    with pytest.raises(InputError, match=r"says that it was trained at mid_block.attentions.0, not at up_blocks"):
        load_site_saes(saes, [dataclasses.replace(output, block="up_blocks.1.attentions.1")])
    write_lens(tmp_path / "said", signal="output", metadata={"hook_name": "unet.mid_block.attentions.0"})
    saes = {"*": str(tmp_path / "said")}
    assert load_site_saes(saes, [output])[output].signal == "output"
    with pytest.raises(InputError, match=r"says that it was trained at mid_block.attentions.0, not at up_blocks"):
        load_site_saes(saes, [dataclasses.replace(output, block="up_blocks.1.attentions.1")])
    write_unbox(tmp_path / "unbox")
    with pytest.raises(InputError, match=r"reads a block's update, and .* gives its output"):
        load_site_saes({"*": str(tmp_path / "unbox")}, [output])


def test_sae_lens_before_version_six(tmp_path: Path):
    write_lens(
        tmp_path / "sae", architecture="standard", k=None, activation_fn_str="topk", activation_fn_kwargs={"k": K}
    )
    assert load_pretrained(tmp_path / "sae")[0].config.k == K


@pytest.mark.parametrize(
    ("write", "changes", "named"),
    [
        (write_sparsify, {"skip_connection": True}, "skip_connection without transcode"),
        (write_sparsify, {"activation": "groupmax"}, "activation=groupmax"),
        (write_lens, {"architecture": "temporal"}, "architecture=temporal"),
    ],
)
def test_other_formulas_are_refused_by_name(tmp_path: Path, write, changes: dict, named: str):
    write(tmp_path / "sae", **changes)
    with pytest.raises(InputError, match=f"asks for {named}; accepted are TopK"):
        load_pretrained(tmp_path / "sae")


@pytest.mark.parametrize("write", [write_unbox, write_sparsify, write_lens])
def test_sizes_and_damage_get_a_sentence(tmp_path: Path, write):
    write(tmp_path / "sae", k="ten")
    with pytest.raises(InputError, match="as whole numbers"):
        read_config(tmp_path / "sae")
    write(tmp_path / "cut")
    weights = next(path for path in (tmp_path / "cut").iterdir() if path.suffix != ".json")
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        load_pretrained(tmp_path / "cut")


def test_a_latent_bias_of_zeros_is_none(tmp_path: Path):
    write_sparsify(tmp_path / "sae")
    tensors = {"encoder.weight": W_ENC, "encoder.bias": torch.zeros(N), "W_dec": W_DEC, "b_dec": B_DEC}
    save_file(tensors, tmp_path / "sae" / "sae.safetensors")
    sae, config = load_pretrained(tmp_path / "sae")
    assert sae.latent_bias is None
    assert not config["latent_bias"]


PUBLISHED = "k10_hidden5120_auxk256_bs4096_lr0.0001"


@pytest.mark.parametrize(
    ("folder", "block"),
    [
        (f"unet.mid_block.attentions.0_{PUBLISHED}/final", "mid_block.attentions.0"),
        (f"unet.up_blocks.0.attentions.1_{PUBLISHED}", "up_blocks.0.attentions.1"),
        (f"down.2.1_{PUBLISHED}/final", "down_blocks.2.attentions.1"),
        ("mid.0/final", "mid_block.attentions.0"),
        ("up.0.1", "up_blocks.0.attentions.1"),
        ("transformer_blocks.18_k16/final", "transformer_blocks.18"),
        ("mid_block.attentions.0-cond-t1.00", None),
        (f"setup.0.1_{PUBLISHED}/final", None),
        ("mine_k10", None),
        ("mid.0/two/final", None),
    ],
)
def test_the_folder_of_an_unbox_names_its_block_where_it_clearly_is_one(tmp_path: Path, folder: str, block: str | None):
    write_unbox(tmp_path / folder)
    assert read_config(tmp_path / folder)["block"] == block
    other, saes = Site("down_blocks.2.attentions.0", "cond", 1.0), {"*": str(tmp_path / folder)}
    if block is None:
        assert load_site_saes(saes, [other])
        return
    assert load_site_saes(saes, [dataclasses.replace(other, block=block)])
    with pytest.raises(InputError, match=f"says that it was trained at {block}, not at down_blocks.2.attentions.0"):
        load_site_saes(saes, [other])


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("unet.mid_block.attentions.0_k10", None),
        ("layers.5_k32", None),
        (
            "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2",
            "up_blocks.1.attentions.1.transformer_blocks.0.attn2",
        ),
    ],
)
def test_a_suffix_is_no_part_of_a_block(name: str, block: str | None):
    assert hook_block(name) == block


def test_missing_tensors_are_named(tmp_path: Path):
    write_lens(tmp_path / "sae")
    save_file({"W_enc": W_ENC.T.contiguous()}, tmp_path / "sae" / "sae_weights.safetensors")
    with pytest.raises(InputError, match="has no 'W_dec'; it is not a complete sae-lens autoencoder"):
        load_pretrained(tmp_path / "sae")


class Shout:
    """Unpickled carelessly, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_state_dict_never_runs(tmp_path: Path):
    write_unbox(tmp_path / "sae")
    with (tmp_path / "sae" / "state_dict.pth").open("wb") as file:
        pickle.dump({"state_dict": Shout(tmp_path / "ran")}, file)
    with pytest.raises(InputError, match="damaged, or holds more than plain tensors"):
        load_pretrained(tmp_path / "sae")
    torch.save({"state_dict": {"pre_bias": Shout(tmp_path / "ran")}}, tmp_path / "sae" / "state_dict.pth")
    with pytest.raises(InputError, match="damaged, or holds more than plain tensors"):
        load_pretrained(tmp_path / "sae")
    assert not (tmp_path / "ran").exists()


def test_a_foreign_sae_serves_a_site_and_is_saved_as_ours(tmp_path: Path):
    write_unbox(tmp_path / SITE.slug)
    saes = load_site_saes(tmp_path, [SITE])
    saes[SITE].save_pretrained(tmp_path / "ours", {"site": SITE})
    again, config = load_pretrained(tmp_path / "ours")
    assert config["latent_bias"] is True
    assert torch.equal(again(X), saes[SITE](X))
