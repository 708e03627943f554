"""Autoencoders as other projects store them, read into the tensors of `SparseAutoencoder`.

| format | files | what differs from ours |
|---|---|---|
| ``sdxl-unbox`` | ``config.json`` (``n_dirs_local``), ``state_dict.pth`` | decoder [d, n]; a latent bias |
| ``sparsify`` (SAeUron, eai-sparsify) | ``cfg.json``, ``sae.safetensors`` | a latent bias |
| ``sae-lens`` | ``cfg.json``, ``sae_weights.safetensors`` | encoder [d, n]; a latent bias; scales that can be folded |

Everything is opened without running code: safetensors, or PyTorch's restricted loader of plain tensors.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from gazetteer.data.core.errors import InputError


class Layout(NamedTuple):
    """Where a layout keeps its parts: its name, its configuration file and its weights file."""

    name: str
    config: str
    weights: str


UNBOX = Layout("sdxl-unbox", "config.json", "state_dict.pth")
SCALER = "activation_scaler.json"
"""Beside a SAELens autoencoder whose weights still live in the space of scaled activations."""

SPARSIFY = Layout("sparsify", "cfg.json", "sae.safetensors")
LENS = Layout("sae-lens", "cfg.json", "sae_weights.safetensors")


def recognise(folder: Path) -> Layout | None:
    """The foreign layout of a folder, by the files in it; None when it has none of them."""
    for layout in (UNBOX, SPARSIFY, LENS):
        if (folder / layout.config).is_file() and (folder / layout.weights).is_file():
            return layout
    return None


def foreign_config(layout: Layout, folder: Path) -> dict[str, Any]:
    """``d``, ``n``, ``k`` and ``layout`` of a foreign autoencoder, and what it said itself under ``original``.

    Raises:
        InputError: it is broken, or states something that `SparseAutoencoder` does not compute.
    """
    path = folder / layout.config
    try:
        stated = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON.") from error
    if not isinstance(stated, dict):
        raise InputError(f"{path} must hold an object.")
    sizes = {UNBOX: _unbox_sizes, SPARSIFY: _sparsify_sizes, LENS: _lens_sizes}[layout](stated, path)
    if not all(type(size) is int for size in sizes):
        raise InputError(f"{path} must give the width, the number of features and k as whole numbers.")
    shape = dict(zip(("d", "n", "k"), sizes, strict=True))
    # sdxl-unbox is the paper's own code, which trains on updates; the others train on whatever they are given.
    signal = "update" if layout is UNBOX else None
    about: dict[str, Any] = {
        "layout": layout.name,
        "signal": signal,
        "normalisation": "none",
        "site": None,
        "metrics": None,
    }
    if layout is LENS:
        about["activation_scale"] = _activation_scale(folder, stated)
    return shape | about | {"original": stated}


def foreign_tensors(layout: Layout, folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """``encoder`` [n, d], ``decoder`` [n, d], ``bias`` [d] and, unless it is all zero, ``latent_bias`` [n].

    Raises:
        InputError: the weights are damaged or incomplete.
    """
    path = folder / layout.weights
    stored = _unpickled(path) if layout is UNBOX else _safe(path)
    read = {UNBOX: _unbox_tensors, SPARSIFY: _sparsify_tensors, LENS: _lens_tensors}[layout]
    try:
        tensors = read(stored, config["original"])
        if (scale := config.get("activation_scale", 1.0)) != 1.0:
            tensors = _unscaled(tensors, scale)
    except KeyError as error:
        raise InputError(f"{path} has no {error}; it is not a complete {layout.name} autoencoder.") from error
    except (RuntimeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} holds tensors whose shapes do not fit each other.") from error
    if not bool(tensors["latent_bias"].any()):
        del tensors["latent_bias"]
    return {name: value.contiguous() for name, value in tensors.items()}


def _unbox_sizes(stated: Mapping[str, Any], path: Path) -> tuple[Any, Any, Any]:
    return stated.get("d_model"), stated.get("n_dirs_local"), stated.get("k")


def _unbox_tensors(stored: Mapping[str, Tensor], _: Mapping[str, Any]) -> dict[str, Tensor]:
    """TopK of W_enc (x − b) + latent bias, then ReLU: the same as ReLU first."""
    return {
        "encoder": stored["encoder.weight"],
        "decoder": stored["decoder.weight"].T,
        "bias": stored["pre_bias"],
        "latent_bias": stored["latent_bias"],
    }


def _sparsify_sizes(stated: Mapping[str, Any], path: Path) -> tuple[Any, Any, Any]:
    """Refuse what has another formula. ``batch_topk`` stores no threshold: such an SAE is read as a TopK of its k."""
    other = [key for key in ("transcode", "skip_connection", "signed", "input_unit_norm") if stated.get(key)]
    if stated.get("activation", "topk") != "topk":
        other.append(f"activation={stated['activation']}")
    _expect_none(other, path)
    d = stated.get("d_in")
    n = stated.get("num_latents") or (stated.get("expansion_factor", 0) * d if isinstance(d, int) else None)
    return d, n, stated.get("k")


def _sparsify_tensors(stored: Mapping[str, Tensor], _: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        "encoder": stored["encoder.weight"],
        "decoder": stored["W_dec"],
        "bias": stored["b_dec"],
        "latent_bias": stored["encoder.bias"],
    }


def _lens_sizes(stated: Mapping[str, Any], path: Path) -> tuple[Any, Any, Any]:
    """TopK alone; in old files it is the activation function of the architecture ``standard``."""
    old = stated.get("activation_fn_str") or stated.get("activation_fn")
    architecture = old if old == "topk" else stated.get("architecture")
    other = [] if architecture == "topk" else [f"architecture={architecture}"]
    if stated.get("normalize_activations", "none") not in ("none", "expected_average_only_in", None):
        other.append(f"normalize_activations={stated['normalize_activations']}")
    if stated.get("reshape_activations", "none") not in ("none", None):
        other.append(f"reshape_activations={stated['reshape_activations']}")
    _expect_none(other, path)
    k = stated.get("k") or (stated.get("activation_fn_kwargs") or {}).get("k")
    return stated.get("d_in"), stated.get("d_sae"), k


def _lens_tensors(stored: Mapping[str, Tensor], stated: Mapping[str, Any]) -> dict[str, Tensor]:
    """Fold what SAELens applies around the same formula.

    Where it does not subtract b before encoding, W x + c = W (x − b) + (c + W b). Where it scales activations by
    the decoder's norms s, W and c grow by s and the decoder shrinks by it.
    """
    encoder, decoder, bias = stored["W_enc"].T, stored["W_dec"], stored["b_dec"]
    latent_bias = stored["b_enc"]
    if not stated.get("apply_b_dec_to_input", True):
        latent_bias = latent_bias + encoder @ bias
    if stated.get("rescale_acts_by_decoder_norm"):
        norms = torch.linalg.vector_norm(decoder, dim=1)
        encoder, latent_bias, decoder = encoder * norms[:, None], latent_bias * norms, decoder / norms[:, None]
    return {"encoder": encoder, "decoder": decoder, "bias": bias, "latent_bias": latent_bias}


def _activation_scale(folder: Path, stated: Mapping[str, Any]) -> float:
    """What activations are multiplied with before a SAELens autoencoder reads them; 1 where that is folded in already.

    Checkpoints of a training lie in the scaled space, with the factor in a file beside them; the last one is folded.

    Raises:
        InputError: it is scaled and the factor is not there, is no positive number, or is not all that is done.
    """
    path, scaled = folder / SCALER, stated.get("normalize_activations") == "expected_average_only_in"
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
        factor, whitened = found.get("scaling_factor"), found.get("has_whitening")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not valid JSON.") from error
    if whitened:
        raise InputError(f"{path} asks for whitening; only autoencoders of plain or scaled activations can be read.")
    if factor is None and not scaled:
        return 1.0
    if factor is None:
        raise InputError(
            f"{folder} reads activations scaled to an average norm (normalize_activations=expected_average_only_in), "
            f"and the factor is not there: {SCALER} belongs beside the weights, or SAELens can fold it into them "
            "(fold_activation_norm_scaling_factor)."
        )
    if not scaled:
        raise InputError(
            f"{path} scales activations and cfg.json says they are not (normalize_activations="
            f"{stated.get('normalize_activations')}); remove the file if the factor is folded in already."
        )
    if not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise InputError(f"{path}: scaling_factor must be a positive number, not {factor!r}.")
    return float(factor)


def _unscaled(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The autoencoder of x that reads scale · x: W_enc grows by the factor, W_dec and b shrink by it."""
    return {
        **tensors, "encoder": tensors["encoder"] * scale, "decoder": tensors["decoder"] / scale,
        "bias": tensors["bias"] / scale,
    }  # fmt: skip


def _expect_none(unsupported: list[str], path: Path) -> None:
    if unsupported:
        raise InputError(f"{path} asks for {', '.join(unsupported)}; only plain TopK autoencoders can be read.")


def _safe(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file; it is damaged.") from error


def _unpickled(path: Path) -> Mapping[str, Tensor]:
    """A state dict of tensors, through the loader that refuses everything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{path} is damaged, or holds more than plain tensors; it was not loaded.") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} does not hold a state dict of tensors.")
    return state
