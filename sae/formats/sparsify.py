"""sparsify (eai-sparsify), SAeUron and SAEmnesia: ``cfg.json`` and ``sae.safetensors``; TopK with a latent bias.

SAeUron's code keeps two keys that sparsify has not, and captures block outputs unless told otherwise
(``output_or_diff="output"``), as its published autoencoders do; its own loader reads BatchTopK and per-picture TopK
ones as a TopK of their k for every vector, for they store no threshold. So does this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gazetteer.sae.formats import keys
from gazetteer.sae.formats.format import Format, described, hook_block, pair
from gazetteer.sae.formats.parts import Folded, expect_none, switched
from gazetteer.sae.formats.restricted import read_json, read_safetensors

OF_SAEURON = ("batch_topk", "sample_topk")


def _stated(weights: Path) -> dict[str, Any]:
    path = weights.with_name("cfg.json")
    stated = read_json(path)
    if stated.get("activation", "topk") != "topk":
        expect_none([f"activation={stated['activation']}"], path)
    if switched(stated, "signed", path):  # of versions that could keep the largest of both signs
        expect_none(["signed"], path)
    d = stated.get("d_in")
    n = stated.get("num_latents") or (stated.get("expansion_factor", 0) * d if isinstance(d, int) else None)
    theirs = any(key in stated for key in OF_SAEURON)
    trained = next(iter([key for key in OF_SAEURON if switched(stated, key, path)]), None)
    more: dict[str, Any] = {"trained_as": trained, "lacks_threshold": True} if trained else {}
    if switched(stated, "input_unit_norm", path):
        more["normalise"] = "layer_norm"  # what that key does in SAeUron's code
    skips = switched(stated, "skip_connection", path)
    if switched(stated, "transcode", path):
        more["transcoder"] = True
        if skips:
            more["differs"] = "what its skip connection adds to what it writes is left out"
    elif skips:
        expect_none(["skip_connection without transcode"], path)
    # Both projects name the folder after the module that it was trained at.
    return described(
        d, n, stated.get("k"), stated, "output" if theirs else None, block=hook_block(weights.parent.name), **more
    )


def _parts(weights: Path, config: Mapping[str, Any]) -> Folded:
    stored = read_safetensors(weights)
    parts = Folded(stored["encoder.weight"], stored["W_dec"], stored["b_dec"], stored["encoder.bias"])
    if not config.get("transcoder"):
        stored.expect_all_taken(weights)
        return parts
    stored.expect_all_taken(weights, *(["W_skip"] if config.get("differs") else []))
    return parts.of_transcoder()


SPARSIFY = Format("sparsify", pair("cfg.json", "sae.safetensors"), _stated, _parts, ("cfg.json",), keys=keys.SPARSIFY)
