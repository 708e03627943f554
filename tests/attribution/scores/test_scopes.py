"""Which part of a network a weight belongs to: told by the attention itself where its name does not say it."""

from __future__ import annotations

from typing import Any

from gazetteer.attribution.scores.overlap import distribution
from gazetteer.attribution.scores.selection import scope_weights
from tests.support.models.dits import tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline


def test_the_second_attention_of_a_block_is_the_picture_s_own() -> None:
    """SD 3.5 medium has one in blocks 0 to 12; a U-Net's reads the text, unless its configuration says otherwise."""

    def again(network: Any, **other: Any) -> Any:
        config = {name: value for name, value in network.config.items() if not name.startswith("_")}
        return type(network)(**{**config, **other})

    sd35 = again(tiny_dit("sd3").transformer, dual_attention_layers=(0,), qk_norm="rms_norm")
    cross, own = scope_weights(sd35, "cross"), scope_weights(sd35, "self")
    second = {name for name in own if ".attn2." in name}
    assert second == {f"transformer_blocks.0.attn2.{part}.weight" for part in ("to_q", "to_k", "to_v", "to_out.0")}
    assert cross and all(".attn.add_" in name or ".attn.to_add_out" in name for name in cross)
    rows = distribution(sd35, {}, scope_weights(sd35, "all"))
    assert {row["kind"] for row in rows if ".attn2." in row["module"]} == {"self"}
    unet = tiny_pipeline().unet
    kinds = {row["kind"] for row in distribution(unet, {}, scope_weights(unet, "all")) if ".attn2." in row["module"]}
    assert kinds == {"cross"} and all(".attn1." in name for name in scope_weights(unet, "self"))
    text_alone = again(unet, only_cross_attention=True)
    assert any(".attn1." in name for name in scope_weights(text_alone, "cross"))
