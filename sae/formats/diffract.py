"""DifFRACT (arXiv 2606.15796): one file ``{sae,transcoder}_{img,txt}_{layer}.pt``, a state dict; ReLU, FiLM on time.

z = ReLU(W_enc (x ⊙ (1 + s(t)) + h(t)) + c), x̂ = W_dec z + b. Its autoencoders read what the feed-forward part of a
double-stream block writes and its transcoders what that part reads; t is the sampler's timestep in thousandths. The
names of the files say which block; one of another name serves where its user says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gazetteer.sae.formats.format import Format, described
from gazetteer.sae.formats.parts import Folded, at_most
from gazetteer.sae.formats.restricted import state_dict, unpickled

LAYERS = {"first": "time_mlp.0", "second": "time_mlp.2", "head": "mod_linear"}
"""Our names of the layers of s and h, and theirs."""

FEED_FORWARD = {"img": "ff", "txt": "ff_context"}
TIMESTEPS = 1000.0


def _find(place: Path) -> Path | None:
    """A file of such a state dict, or the only one of a folder without a configuration."""
    if place.is_dir():
        files = [path for path in place.glob("*.pt") if _find(path)]
        return files[0] if len(files) == 1 and not list(place.glob("*.json")) else None
    if place.suffix != ".pt" or not place.is_file():
        return None
    with place.open("rb") as file:
        return place if b"time_mlp.0.weight" in file.read(4096) else None


def _stated(path: Path) -> dict[str, Any]:
    shapes = state_dict(unpickled(path, shapes_only=True), path)
    n, d = (int(size) for size in shapes["encoder.weight"].shape)
    writes, time_dim = int(shapes["decoder.weight"].shape[0]), int(shapes["time_mlp.0.weight"].shape[0])
    named = re.fullmatch(r"(sae|transcoder)_(img|txt)_(\d+)", path.stem)
    block = f"transformer_blocks.{int(named[3])}.{FEED_FORWARD[named[2]]}" if named else None
    more: dict[str, Any] = {"block": block, "activation": "relu", "time_dim": time_dim, "time_scale": TIMESTEPS}
    signal = "output" if named else None
    if named and named[1] == "transcoder":
        more |= {"transcoder": True, "d_out": writes}
        signal = "input"
    return described(d, n, at_most(n), {"file": path.name}, signal, **more)


def _parts(path: Path, config: Mapping[str, Any]) -> Folded:
    stored = state_dict(unpickled(path), path)
    parts = Folded(
        stored["encoder.weight"], stored["decoder.weight"].T, stored["decoder.bias"], stored["encoder.bias"]
    )  # fmt: skip
    if config.get("transcoder"):
        parts = parts.of_transcoder()
    else:
        parts = parts.without_input_bias()
    time = {f"time.{ours}.{kind}": stored[f"{theirs}.{kind}"] for ours, theirs in LAYERS.items() for kind in KINDS}
    stored.expect_all_taken(path)
    return replace(parts, more=time)


KINDS = ("weight", "bias")

DIFFRACT = Format("diffract", _find, _stated, _parts)
