"""sdxl-unbox (Surkov et al. 2024): ``config.json`` and ``state_dict.pth``; TopK with a latent bias, on updates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gazetteer.sae.formats.format import Format, described, pair
from gazetteer.sae.formats.parts import Folded
from gazetteer.sae.formats.restricted import read_json, state_dict, unpickled


def _stated(weights: Path) -> dict[str, Any]:
    stated = read_json(weights.with_name("config.json"))
    # The paper's own code, which trains on what a block adds.
    return described(stated.get("d_model"), stated.get("n_dirs_local"), stated.get("k"), stated, "update")


def _parts(weights: Path, _: Mapping[str, Any]) -> Folded:
    """TopK of W_enc (x − b) + c, then ReLU: the same as ReLU first."""
    stored = state_dict(unpickled(weights), weights, "state_dict")
    parts = Folded(stored["encoder.weight"], stored["decoder.weight"].T, stored["pre_bias"], stored["latent_bias"])
    stored.expect_all_taken(weights, *COUNTERS)
    return parts


COUNTERS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
"""What its training, and the code that it comes from, count."""

UNBOX = Format("sdxl-unbox", pair("config.json", "state_dict.pth"), _stated, _parts, ("config.json",))
