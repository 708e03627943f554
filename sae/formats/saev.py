"""saev: ``sae.pt``, a line of JSON (``schema``, ``cfg``) and then a state dict; ReLU, TopK or BatchTopK.

Its encoder subtracts b_dec where the header has no ``schema`` or is of the first one that names the activation as the
class of the configuration (until 31 July 2025; what was written on that day by the first code that subtracts nothing
has the same header), and nothing later. Until then activations were centred and scaled by numbers of the training's
data that no file holds. Its TopK keeps negative values among the k largest; here they count as zero. What cannot be
computed as there, ``differs`` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError
from gazetteer.sae.formats import keys
from gazetteer.sae.formats.format import Format, described
from gazetteer.sae.formats.parts import Folded, at_most, expect_none
from gazetteer.sae.formats.restricted import state_dict, unpickled

SCHEMAS = (1, 2, 3, 4, 5)
LONGEST_HEADER = 1 << 20
FORMULA = {"Relu": "relu", "TopK": "topk", "BatchTopK": "jumprelu"}
SCALED = (
    "trained, unless its user said otherwise, on activations less their mean and divided by one number, both of its "
    "data and in no file; it is given them as they are"
)
UNTOLD = "b_dec is subtracted before encoding, which what was written on 31 July 2025 may not have done"
OF_A_BATCH = "its k was of a whole batch and is taken of every vector"
NEGATIVE = "negative values among the k largest count as zero"


def _find(place: Path) -> Path | None:
    """Files of any name ``*.pt``, and ``sae.pt`` of a folder, that begin with a JSON object."""
    path = place / "sae.pt" if place.is_dir() else place
    if path.suffix != ".pt" or not path.is_file():
        return None
    with path.open("rb") as file:
        return path if file.read(1) == b"{" else None


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON object of the first line, and its length in bytes."""
    with path.open("rb") as file:
        line = file.readline(LONGEST_HEADER)
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} does not begin with a line of JSON, as saev writes it.") from error
    if not isinstance(header, dict):
        raise InputError(f"{path} must begin with a JSON object.")
    return header, len(line)


def _is_first(header: Mapping[str, Any]) -> bool:
    """Whether a header is of the first schema, and of the time when its encoder subtracted b_dec."""
    return header.get("schema") == 1 and str(header.get("cls")) in FORMULA


def _revision(path: Path) -> str:
    """Files of the first schema were once read here without subtracting b_dec."""
    return "subtracts" if _is_first(_header(path)[0]) else ""


def _stated(path: Path) -> dict[str, Any]:
    header, length = _header(path)
    if "schema" not in header and "d_vit" in header:
        header, differs = {**header, "schema": 1, "cls": "Relu"}, [SCALED]
    else:
        differs = [SCALED, UNTOLD] if _is_first(header) else []
    more: dict[str, Any] = {"subtracts": bool(differs)}
    known = type(header.get("schema")) is int and header["schema"] in SCHEMAS
    expect_none([] if known else [f"schema={header.get('schema')}"], path)
    config: dict[str, Any] = header["cfg"] if isinstance(header.get("cfg"), dict) else {}
    activation: dict[str, Any] = config["activation"] if isinstance(config.get("activation"), dict) else {}
    # The first schema named the activation where later ones name the class of the configuration.
    name = str(activation.get("cls") or header.get("cls"))
    expect_none([] if name in FORMULA else [f"activation={name}"], path)
    k = (activation.get("params") or {}).get("top_k", config.get("top_k"))
    shapes = state_dict(unpickled(path, shapes_only=True, skip=length), path)
    if "W_enc" not in shapes:
        raise InputError(f"{path} has no 'W_enc'; it is not a complete saev autoencoder.")
    d, n = (int(size) for size in shapes["W_enc"].shape)
    formula = FORMULA[name]
    if name == "BatchTopK" and "activation.threshold" not in shapes:
        # Before it learned one, that project took the k largest of every vector, whatever the name.
        formula, more = "topk", {**more, "trained_as": f"batch_topk of {k}", "lacks_threshold": True}
        differs += [OF_A_BATCH] if header["schema"] == 1 else []
    differs += [NEGATIVE] if formula == "topk" else []
    if differs:
        more["differs"] = "; ".join(differs)
    return described(d, n, k if formula == "topk" else at_most(n), header, activation=formula, **more)


def _parts(path: Path, config: Mapping[str, Any]) -> Folded:
    stored = state_dict(unpickled(path, skip=_header(path)[1]), path)
    parts = Folded(stored["W_enc"].T, stored["W_dec"], stored["b_dec"], stored["b_enc"])
    if not config["subtracts"]:
        parts = parts.without_input_bias()
    if config["activation"] == "jumprelu":
        threshold = stored["activation.threshold"].to(parts.encoder.dtype).clamp_min(0)
        parts = replace(parts, threshold=threshold.expand(len(parts.encoder)))
    stored.expect_all_taken(path)
    return parts


SAEV = Format("saev", _find, _stated, _parts, keys=keys.SAEV, revision=_revision)
