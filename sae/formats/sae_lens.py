"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, with ``activation_scaler.json`` beside unfinished ones.

Architectures ``standard`` (ReLU), ``topk``, ``batchtopk`` and ``matryoshka_batchtopk`` of a training checkpoint,
``jumprelu``, ``gated``, ``transcoder`` and ``jumprelu_transcoder``. A finished BatchTopK or Matryoshka one is a
``jumprelu`` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.sae.formats import keys
from gazetteer.sae.formats.format import Format, described, hook_block, pair
from gazetteer.sae.formats.parts import Folded, at_most, expect_none, gated, jumping, switched
from gazetteer.sae.formats.restricted import read_json, read_safetensors

SCALER = "activation_scaler.json"
"""Beside one whose weights still live in the space of scaled activations."""

SCALED = "expected_average_only_in"
NORMALISED = {"layer_norm": "layer_norm", "constant_norm_rescale": "norm"}
FORMULA = {
    "topk": "topk", "standard": "relu", "jumprelu": "jumprelu", "gated": "jumprelu", "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu", "transcoder": "relu", "jumprelu_transcoder": "jumprelu",
}  # fmt: skip


def _stated(weights: Path) -> dict[str, Any]:
    path = weights.with_name("cfg.json")
    stated = read_json(path)
    # In old files TopK is the activation function of the architecture ``standard``.
    old = stated.get("activation_fn_str") or stated.get("activation_fn")
    architecture = "topk" if old == "topk" else str(stated.get("architecture") or "standard")
    unsupported = [] if architecture in FORMULA else [f"architecture={architecture}"]
    unsupported += [] if old in (None, "relu", "topk") else [f"activation_fn={old}"]
    expect_none(unsupported, path)
    normalise = stated.get("normalize_activations") or "none"
    normalisations = ("none", SCALED, *NORMALISED)
    if normalise not in normalisations:
        expect_none([f"normalize_activations={normalise}"], path, ", ".join(normalisations))
    if stated.get("reshape_activations", "none") not in ("none", None):
        expect_none([f"reshape_activations={stated['reshape_activations']}"], path, "none")
    for key in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        switched(stated, key, path)
    n, formula = stated.get("d_sae"), FORMULA[architecture]
    k = stated.get("k") or (stated.get("activation_fn_kwargs") or {}).get("k")
    more: dict[str, Any] = {"activation": formula, "normalise": NORMALISED.get(normalise, "none")}
    if architecture.endswith("transcoder"):
        more["transcoder"] = True
        if stated.get("d_out") not in (None, stated.get("d_in")):
            more["d_out"] = stated["d_out"]
        if more["normalise"] != "none":
            more["differs"] = "what it writes is scaled back as what it reads, which SAELens leaves out"
    if formula != "topk":
        k = at_most(n) if isinstance(n, int) else n
    hook = stated.get("hook_name") or (stated.get("metadata") or {}).get("hook_name")
    scale = _activation_scale(weights.parent, stated)
    return described(
        stated.get("d_in"), n, k, stated, block=hook_block(hook), architecture=architecture, activation_scale=scale,
        **more,
    )  # fmt: skip


def _parts(weights: Path, config: Mapping[str, Any]) -> Folded:
    """Fold what SAELens applies around the same formula."""
    stored, stated = read_safetensors(weights), config["original"]
    parts, scale = _formula(stored, config["architecture"]), config["activation_scale"]
    if config.get("transcoder"):
        stored.expect_all_taken(weights, *_neutral(stored))
        return parts.of_scaled(scale).of_transcoder()
    if not switched(stated, "apply_b_dec_to_input", weights, default=True):
        parts = parts.without_input_bias()
    if switched(stated, "rescale_acts_by_decoder_norm", weights):
        parts = parts.by_decoder_norms()
    if "topk_threshold" in stored:  # of activations that are scaled already
        threshold = stored["topk_threshold"].to(parts.encoder.dtype).clamp_min(0)
        parts = replace(parts, threshold=threshold.expand(len(parts.encoder)))
    stored.expect_all_taken(weights, *_neutral(stored))
    return parts.of_scaled(scale) if scale != 1.0 else parts


def _neutral(stored: Mapping[str, Tensor]) -> list[str]:
    """Factors of old files, by which activations were multiplied after the rest had been trained, where all are 1."""
    names = ("scaling_factor", "finetuning_scaling_factor")
    factors = {name: stored.get(name) for name in names}
    return [name for name, factor in factors.items() if factor is not None and bool((factor == 1).all())]


def _formula(stored: Mapping[str, Tensor], architecture: str) -> Folded:
    encoder, decoder, bias = stored["W_enc"].T, stored["W_dec"], stored["b_dec"]
    if architecture == "gated":
        return gated(encoder, decoder, bias, stored["b_gate"], stored["b_mag"], stored["r_mag"])
    if architecture.startswith("jumprelu"):
        return jumping(encoder, decoder, bias, stored["b_enc"], stored["threshold"])
    return Folded(encoder, decoder, bias, stored["b_enc"])


def _activation_scale(folder: Path, stated: Mapping[str, Any]) -> float:
    """What activations are multiplied with before it reads them; 1 where that is folded in already.

    Checkpoints of a training lie in the scaled space, with the factor in a file beside them; the last one is folded.

    Raises:
        InputError: it is scaled and the factor is not there, is no positive number, or is not all that is done.
    """
    path, scaled = folder / SCALER, stated.get("normalize_activations") == SCALED
    content = read_json(path) if path.is_file() else {}
    factor = content.get("scaling_factor")
    if switched(content, "has_whitening", path):
        raise InputError(f"{path} asks for whitening; only autoencoders of plain or scaled activations can be read.")
    if factor is None and not scaled:
        return 1.0
    if factor is None:
        raise InputError(
            f"{folder} reads activations scaled to an average norm (normalize_activations={SCALED}), "
            f"and the factor is not there: {SCALER} belongs beside the weights, or SAELens can fold it into them "
            "(fold_activation_norm_scaling_factor)."
        )
    if not scaled:
        raise InputError(
            f"{path} scales activations and cfg.json says they are not (normalize_activations="
            f"{stated.get('normalize_activations')}); remove the file if the factor is folded in already."
        )
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise InputError(f"{path}: scaling_factor must be a positive number, not {factor!r}.")
    return float(factor)


SAE_LENS = Format(
    "sae-lens", pair("cfg.json", "sae_weights.safetensors"), _stated, _parts, ("cfg.json", SCALER), keys=keys.SAE_LENS
)
