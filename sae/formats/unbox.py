"""sdxl-unbox (Surkov et al. 2024): ``config.json`` and ``state_dict.pth``; TopK with a latent bias, on updates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gazetteer.sae.formats import keys
from gazetteer.sae.formats.format import Format, described, hook_block, pair
from gazetteer.sae.formats.parts import Folded
from gazetteer.sae.formats.restricted import read_json, state_dict, unpickled


def _stated(weights: Path) -> dict[str, Any]:
    stated = read_json(weights.with_name("config.json"))
    # The paper's own code, which trains on what a block adds.
    return described(
        stated.get("d_model"), stated.get("n_dirs_local"), stated.get("k"), stated, "update", block=_block(weights)
    )


def _block(weights: Path) -> str | None:
    """The block that the folder of the weights is named after, or the one around it, as it is in what is published.

    ``unet.mid_block.attentions.0_k10_hidden5120_auxk256_bs4096_lr0.0001/final``, or in short ``mid.0_k10_…``.
    """
    for folder in weights.absolute().parents[:2]:
        name = re.sub(r"_k\d+(_.*)?$", "", folder.name)
        short = re.fullmatch(r"(?:(down|up)\.(\d+)|mid)\.(\d+)", name)
        if short:
            return f"{f'{short[1]}_blocks.{short[2]}' if short[1] else 'mid_block'}.attentions.{short[3]}"
        if (block := hook_block(name)) is not None:
            return block
    return None


def _parts(weights: Path, _: Mapping[str, Any]) -> Folded:
    """TopK of W_enc (x − b) + c, then ReLU: the same as ReLU first."""
    stored = state_dict(unpickled(weights), weights, "state_dict")
    parts = Folded(stored["encoder.weight"], stored["decoder.weight"].T, stored["pre_bias"], stored["latent_bias"])
    stored.expect_all_taken(weights, *COUNTERS)
    return parts


COUNTERS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
"""What its training, and the code that it comes from, count."""

UNBOX = Format("sdxl-unbox", pair("config.json", "state_dict.pth"), _stated, _parts, ("config.json",), keys=keys.UNBOX)
