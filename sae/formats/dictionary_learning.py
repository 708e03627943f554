"""dictionary_learning: ``ae.pt``, a state dict, and ``config.json`` with the ``trainer`` that names its class.

Classes AutoEncoder and AutoEncoderNew (ReLU), GatedAutoEncoder, JumpReluAutoEncoder, AutoEncoderTopK, BatchTopKSAE and
MatryoshkaBatchTopKSAE. A BatchTopK threshold below zero was never learned; that project encodes with ReLU then, and
this one takes the k largest of every vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.sae.formats import keys
from gazetteer.sae.formats.format import Format, described, hook_block, pair
from gazetteer.sae.formats.parts import Folded, at_most, expect_none, gated, jumping
from gazetteer.sae.formats.restricted import read_json, state_dict, unpickled

FORMULA = {
    "AutoEncoder": "relu", "AutoEncoderNew": "relu", "GatedAutoEncoder": "jumprelu", "JumpReluAutoEncoder": "jumprelu",
    "AutoEncoderTopK": "topk", "BatchTopKSAE": "jumprelu", "MatryoshkaBatchTopKSAE": "jumprelu",
}  # fmt: skip


def _stated(weights: Path) -> dict[str, Any]:
    path = weights.with_name("config.json")
    stated = read_json(path)
    trainer: dict[str, Any] = stated["trainer"] if isinstance(stated.get("trainer"), dict) else {}
    name = str(trainer.get("dict_class"))
    expect_none([] if name in FORMULA else [f"dict_class={name}"], path)
    formula, k = FORMULA[name], trainer.get("k")
    shapes = state_dict(unpickled(weights, shapes_only=True), weights)
    d, n = _sizes(shapes)
    more: dict[str, Any] = {"dict_class": name, "block": hook_block(trainer.get("submodule_name"))}
    if name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        # The only number of the weights that changes the formula.
        if float(state_dict(unpickled(weights), weights)["threshold"]) < 0:
            formula, more["lacks_threshold"] = "topk", True
        more["trained_as"] = f"batch_topk of {k}"
    k = k if formula == "topk" else at_most(n)
    return described(d, n, k, stated, activation=formula, **more)


def _sizes(shapes: Mapping[str, Tensor]) -> tuple[int, int]:
    """d and n, from the names that all classes share."""
    if "W_enc" in shapes:
        return int(shapes["W_enc"].shape[0]), int(shapes["W_enc"].shape[1])
    n, d = shapes["encoder.weight"].shape
    return int(d), int(n)


def _parts(weights: Path, config: Mapping[str, Any]) -> Folded:
    stored = state_dict(unpickled(weights), weights)
    if config["activation"] == "topk" and "k" in stored and int(stored["k"]) != config["k"]:
        raise InputError(f"{weights} was trained with k={int(stored['k'])}, and its config.json says k={config['k']}.")
    parts = _formula(stored, config)
    stored.expect_all_taken(weights, "k", "threshold", "group_sizes")
    return parts


def _formula(stored: Mapping[str, Tensor], config: Mapping[str, Any]) -> Folded:
    name = config["dict_class"]
    if name == "JumpReluAutoEncoder":
        parts = jumping(stored["W_enc"].T, stored["W_dec"], stored["b_dec"], stored["b_enc"], stored["threshold"])
        return parts.without_input_bias()
    if name == "MatryoshkaBatchTopKSAE":
        parts = Folded(stored["W_enc"].T, stored["W_dec"], stored["b_dec"], stored["b_enc"])
        return _with_threshold(parts, stored, config)
    encoder, decoder = stored["encoder.weight"], stored["decoder.weight"].T
    if name == "GatedAutoEncoder":
        return gated(encoder, decoder, stored["decoder_bias"], stored["gate_bias"], stored["mag_bias"], stored["r_mag"])
    if name == "AutoEncoderNew":
        return Folded(encoder, decoder, stored["decoder.bias"], stored["encoder.bias"]).without_input_bias()
    bias = stored["bias" if name == "AutoEncoder" else "b_dec"]
    parts = Folded(encoder, decoder, bias, stored["encoder.bias"])
    # That project's own loader scales AutoEncoder's features to concept vectors of unit norm.
    return parts.by_decoder_norms() if name == "AutoEncoder" else _with_threshold(parts, stored, config)


def _with_threshold(parts: Folded, stored: Mapping[str, Tensor], config: Mapping[str, Any]) -> Folded:
    if config["activation"] != "jumprelu":
        return parts
    threshold = stored["threshold"].to(torch.float32).clamp_min(0)
    return replace(parts, threshold=threshold.expand(len(parts.encoder)))


DICTIONARY_LEARNING = Format(
    "dictionary_learning",
    pair("config.json", "ae.pt"),
    _stated,
    _parts,
    ("config.json",),
    keys=keys.DICTIONARY_LEARNING,
)
