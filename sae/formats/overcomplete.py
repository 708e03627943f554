"""overcomplete: one file ``*.pt`` or ``*.pth`` of a whole model, as ``torch.save(sae, path)`` writes it.

TopKSAE, JumpSAE and SAE (ReLU), with its linear encoders: one with or without batch norm, and ``tied()`` or
``untied()`` ones. The model is read as objects without behaviour, from which the tensors and k are taken. Its
BatchTopKSAE keeps the strongest activations of a whole batch against a running threshold, which is in the file too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.sae.formats.format import Format, described
from gazetteer.sae.formats.parts import Folded, at_most, expect_none
from gazetteer.sae.formats.restricted import Empty, unpickled

FORMULA = {"TopKSAE": "topk", "JumpSAE": "jumprelu", "BatchTopKSAE": "jumprelu", "SAE": "relu"}
_MODELS = {
    "TopKSAE": "topk_sae", "JumpSAE": "jump_sae", "BatchTopKSAE": "batchtopk_sae", "SAE": "base",
}  # fmt: skip
CLASSES = (
    *(f"overcomplete.sae.{module}.{name}" for name, module in _MODELS.items()),
    "overcomplete.sae.modules.MLPEncoder",
    "overcomplete.sae.modules.TieableEncoder",
    "overcomplete.sae.dictionary.DictionaryLayer",
    *(f"overcomplete.sae.dictionary.normalize_{name}" for name in ("l2", "max_l2", "l1", "max_l1", "identity")),
    *(f"overcomplete.sae.kernels.{name}_kernel" for name in (
        "rectangle", "gaussian", "triangular", "cosine", "epanechnikov", "quartic", "silverman", "cauchy"
    )),
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.activation.ReLU",
)  # fmt: skip


def _find(place: Path) -> Path | None:
    """A file of its own, or the only ``*.pt`` or ``*.pth`` of a folder without a ``config.json``."""
    if place.is_dir():
        files = [path for path in place.iterdir() if path.suffix in (".pt", ".pth")]
        return files[0] if len(files) == 1 and _find(files[0]) and not (place / "config.json").exists() else None
    if place.suffix not in (".pt", ".pth") or not place.is_file():
        return None
    with place.open("rb") as file:
        head = file.read(4096)
    return place if b"overcomplete.sae" in head else None


def _model(path: Path) -> Any:
    model = unpickled(path, classes=CLASSES)
    if not isinstance(model, Empty) or type(model).__name__ not in FORMULA:
        raise InputError(f"{path} holds no model of overcomplete that can be read; accepted: {', '.join(FORMULA)}.")
    return model


def _stated(path: Path) -> dict[str, Any]:
    model = _model(path)
    name, weights = type(model).__name__, model._modules["dictionary"]._parameters["_weights"]
    n, d = (int(size) for size in weights.shape)
    formula = FORMULA[name]
    if name == "BatchTopKSAE" and getattr(model, "running_threshold", None) is None:
        expect_none(["BatchTopKSAE without a running threshold"], path)
    k = int(model.top_k) if formula == "topk" else at_most(n)
    return described(d, n, k, {"class": name}, activation=formula)


def _parts(path: Path, config: Mapping[str, Any]) -> Folded:
    model = _model(path)
    encoder, latent_bias = _encoder(model._modules["encoder"], path)
    decoder = _dictionary(model._modules["dictionary"], path)
    name, threshold = config["original"]["class"], None
    if name == "JumpSAE":
        threshold = model._parameters["thresholds"].exp()
    elif name == "BatchTopKSAE":
        threshold = torch.as_tensor(model.running_threshold, dtype=encoder.dtype).expand(len(encoder))
    # It counts what reaches the threshold; what is above the next number below it is the same.
    threshold = None if threshold is None else torch.nextafter(threshold, torch.zeros_like(threshold)).clamp_min(0)
    zero = torch.zeros(encoder.shape[1], dtype=encoder.dtype)
    return Folded(encoder, decoder, zero, latent_bias, threshold)


def _encoder(encoder: Any, path: Path) -> tuple[Tensor, Tensor]:
    """W_enc [n, d] and c [n] of a linear encoder: its batch norm folded in, or the dictionary that it is tied to."""
    if type(encoder).__name__ == "TieableEncoder":
        weight, bias = (encoder._parameters[name] for name in ("weight", "bias"))
        weight = _dictionary(encoder._modules["tied_to"], path) if weight is None else weight.detach()
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()
    if type(encoder).__name__ != "MLPEncoder":
        expect_none([f"the encoder {type(encoder).__name__}"], path)
    if getattr(encoder, "nb_blocks", 0) > 1:
        expect_none([f"the encoder {type(encoder).__name__} of more than one layer"], path)
    final = type(encoder._modules["final_activation"]).__name__
    if final != "ReLU":
        expect_none([f"the output activation {final}"], path)
    linear, norm = (encoder._modules["final_block"]._modules[place] for place in ("0", "1"))
    weight, bias = linear._parameters["weight"].detach(), linear._parameters["bias"].detach()
    if type(norm).__name__ == "Identity":
        return weight, bias
    if type(norm).__name__ != "BatchNorm1d":
        expect_none([f"the norm {type(norm).__name__}"], path)
    scale = norm._parameters["weight"].detach() / (norm._buffers["running_var"] + norm.eps).sqrt()
    return weight * scale[:, None], (bias - norm._buffers["running_mean"]) * scale + norm._parameters["bias"].detach()


def _dictionary(layer: Any, path: Path) -> Tensor:
    """The concept vectors [n, d] as the model multiplies with them."""
    fused = getattr(layer, "_fused_dictionary", None)
    if isinstance(fused, Tensor) and not layer.training:
        return fused.detach()
    multiplier = layer._parameters.get("multiplier", layer._buffers.get("multiplier"))
    if type(layer.normalization).__name__ != "normalize_l2" and getattr(layer.normalization, "__name__", "") != (
        "normalize_l2"
    ):
        expect_none(["a dictionary in training that is not normalised by l2"], path)
    weights = layer._parameters["_weights"].detach()
    return F.normalize(weights, dim=1) * multiplier.detach().exp()


OVERCOMPLETE = Format("overcomplete", _find, _stated, _parts)
