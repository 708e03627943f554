"""Prisma (vit-prisma): ``config.json`` and ``n_images_*.pt`` or ``weights.pt``; standard (ReLU, TopK) and gated.

The ``.pt`` files often hold a configuration of that project's class beside the state dict. It is read as an object
without behaviour, and not needed: ``config.json`` says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gazetteer.sae.formats import keys
from gazetteer.sae.formats.format import Format, described
from gazetteer.sae.formats.parts import Folded, at_most, expect_none, gated, switched
from gazetteer.sae.formats.restricted import read_json, state_dict, unpickled

NORMALISED = {"layer_norm": "layer_norm", "constant_norm_rescale": "norm"}
CLASSES = (
    "vit_prisma.sae.config.VisionModelSAERunnerConfig",
    "vit_prisma.sae.config.RunnerConfig",
    "pathlib.PosixPath",
)


def _find(place: Path) -> Path | None:
    """``n_images_*.pt`` (the one of the most pictures) or ``weights.pt`` beside a ``config.json``; or that file."""
    folder = place.parent if place.suffix == ".pt" else place
    if not (folder / "config.json").is_file():
        return None
    if place.suffix == ".pt":
        return place if place.is_file() and (place.name == "weights.pt" or place.name.startswith("n_images_")) else None
    files = sorted(folder.glob("n_images_*.pt"), key=_pictures) or [folder / "weights.pt"]
    return files[-1] if files[-1].is_file() else None


def _pictures(path: Path) -> tuple[int, str]:
    digits = path.stem.removeprefix("n_images_")
    return (int(digits) if digits.isdigit() else -1), path.name


def _stated(weights: Path) -> dict[str, Any]:
    path = weights.with_name("config.json")
    stated = read_json(path)
    architecture, function = stated.get("architecture", "standard"), stated.get("activation_fn_str", "relu")
    unsupported = [] if architecture in ("standard", "gated") else [f"architecture={architecture}"]
    unsupported += [] if function in ("relu", "topk") and not (function == "topk" and architecture == "gated") else [
        f"activation_fn_str={function}"
    ]  # fmt: skip
    unsupported += ["is_transcoder"] if switched(stated, "is_transcoder", path) else []
    options = stated.get("activation_fn_kwargs") or {}
    unsupported += [f"activation_fn_kwargs={key}" for key in sorted(set(options) - {"k"})]
    # That project's class takes a layer norm where a file says nothing.
    normalise = stated.get("normalize_activations", "layer_norm") or "none"
    expect_none(unsupported, path)
    if normalise not in ("none", *NORMALISED):
        expect_none([f"normalize_activations={normalise}"], path, ", ".join(("none", *NORMALISED)))
    d, n = stated.get("d_in"), stated.get("d_sae")
    if n is None and isinstance(d, int) and isinstance(stated.get("expansion_factor"), int):
        n = d * stated["expansion_factor"]
    formula = "topk" if function == "topk" else "jumprelu" if architecture == "gated" else "relu"
    k = options.get("k") if formula == "topk" else at_most(n or 1)
    return described(
        d, n, k, stated, activation=formula, normalise=NORMALISED.get(normalise, "none"), architecture=architecture
    )


def _parts(weights: Path, config: Mapping[str, Any]) -> Folded:
    stored = state_dict(unpickled(weights, classes=CLASSES), weights, "state_dict")
    encoder, decoder, bias = stored["W_enc"].T, stored["W_dec"], stored["b_dec"]
    if config["architecture"] == "gated":
        parts = gated(encoder, decoder, bias, stored["b_gate"], stored["b_mag"], stored["r_mag"])
        stored.expect_all_taken(weights, "b_enc")  # made there for every class, and not used by this one
        return parts
    parts = Folded(encoder, decoder, bias, stored["b_enc"])
    stored.expect_all_taken(weights)
    return parts


PRISMA = Format("prisma", _find, _stated, _parts, ("config.json",), keys=keys.PRISMA)
