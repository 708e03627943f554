"""The weights of Grounding DINO in `groundingdino-py` and in transformers.

The transformers names are those of its saved files, as on the hub, which stay the same over its
versions; the modules in memory do not. Box heads are tied in both libraries: a saved file of
transformers holds the first one only, a published checkpoint all copies.
"""

from __future__ import annotations

from tests.support.models.key_map import KeyMap, Rule


def _below(original: str, transformers: str, pairs: dict[str, str]) -> list[Rule]:
    """Rules for the weights and biases of modules under a common prefix."""
    return [(f"{original}.{left}.*", f"{transformers}.{right}.*") for left, right in pairs.items()]


def _fused(original: str, transformers: str) -> list[Rule]:
    """An attention whose query, key and value projections are one tensor in torch's own module."""
    parts = tuple(f"{transformers}.{part}.*" for part in ("query", "key", "value"))
    return [(f"{original}.in_proj_*", parts), (f"{original}.out_proj.*", f"{transformers}.out_proj.*")]


def _swin() -> list[Rule]:
    theirs, ours = "backbone.0", "model.backbone.conv_encoder.model"
    block, layer = f"{theirs}.layers.{{}}.blocks.{{}}", f"{ours}.encoder.layers.{{}}.blocks.{{}}"
    parts = tuple(f"{layer}.attention.self.{part}.*" for part in ("query", "key", "value"))
    table = "relative_position_bias_table"
    return [
        (f"{theirs}.patch_embed.proj.*", f"{ours}.embeddings.patch_embeddings.projection.*"),
        (f"{theirs}.patch_embed.norm.*", f"{ours}.embeddings.norm.*"),
        (f"{block}.attn.qkv.*", parts),
        (f"{block}.attn.{table}", f"{layer}.attention.self.{table}"),
        (f"{block}.attn.proj.*", f"{layer}.attention.output.dense.*"),
        (f"{block}.norm1.*", f"{layer}.layernorm_before.*"),
        (f"{block}.norm2.*", f"{layer}.layernorm_after.*"),
        (f"{block}.mlp.fc1.*", f"{layer}.intermediate.dense.*"),
        (f"{block}.mlp.fc2.*", f"{layer}.output.dense.*"),
        (f"{theirs}.layers.{{}}.downsample.*", f"{ours}.encoder.layers.{{}}.downsample.*"),
        # one side counts stages from zero, the other from one
        *((f"{theirs}.norm{i}.*", f"{ours}.hidden_states_norms.stage{i + 1}.*") for i in range(4)),
    ]


def _encoder() -> list[Rule]:
    theirs, ours = "transformer.encoder", "model.encoder.layers.{}"
    fusion = {"layer_norm_v": "layer_norm_vision", "layer_norm_l": "layer_norm_text"}
    pairs = {"v_proj": "vision_proj", "l_proj": "text_proj"}
    for prefix in ("", "values_", "out_"):
        fusion.update({f"attn.{prefix}{left}": f"attn.{prefix}{right}" for left, right in pairs.items()})
    image = {
        "self_attn": "self_attn", "norm1": "self_attn_layer_norm", "linear1": "fc1", "linear2": "fc2",
        "norm2": "final_layer_norm",
    }  # fmt: skip
    text = {"linear1": "fc1", "linear2": "fc2", "norm1": "layer_norm_before", "norm2": "layer_norm_after"}
    return [
        *_below(f"{theirs}.layers.{{}}", f"{ours}.deformable_layer", image),
        *_fused(f"{theirs}.text_layers.{{}}.self_attn", f"{ours}.text_enhancer_layer.self_attn"),
        *_below(f"{theirs}.text_layers.{{}}", f"{ours}.text_enhancer_layer", text),
        *_below(f"{theirs}.fusion_layers.{{}}", f"{ours}.fusion_layer", fusion),
        (f"{theirs}.fusion_layers.{{}}.gamma_v", f"{ours}.fusion_layer.vision_param"),
        (f"{theirs}.fusion_layers.{{}}.gamma_l", f"{ours}.fusion_layer.text_param"),
    ]


def _decoder() -> list[Rule]:
    theirs, ours = "transformer.decoder.layers.{}", "model.decoder.layers.{}"
    pairs = {
        "cross_attn": "encoder_attn", "norm1": "encoder_attn_layer_norm", "norm2": "self_attn_layer_norm",
        "norm3": "final_layer_norm", "catext_norm": "encoder_attn_text_layer_norm", "linear1": "fc1",
        "linear2": "fc2",
    }  # fmt: skip
    return [
        *_fused(f"{theirs}.self_attn", f"{ours}.self_attn"),
        *_fused(f"{theirs}.ca_text", f"{ours}.encoder_attn_text"),
        *_below(theirs, ours, pairs),
        ("transformer.decoder.norm.*", "model.decoder.layer_norm.*"),
        ("transformer.decoder.ref_point_head.*", "model.decoder.reference_points_head.*"),
        ("transformer.decoder.bbox_embed.{}.*", "model.decoder.bbox_embed.{}.*"),
    ]


GROUNDING_DINO = KeyMap(
    "Grounding DINO",
    [
        *_swin(),
        *_encoder(),
        *_decoder(),
        ("bbox_embed.{}.*", "bbox_embed.{}.*"),
        ("bert.*", "model.text_backbone.*"),
        ("feat_map.*", "model.text_projection.*"),
        ("input_proj.{}.*", "model.input_proj_vision.{}.*"),
        ("transformer.level_embed", "model.level_embed"),
        ("transformer.tgt_embed.*", "model.query_position_embeddings.*"),
        ("transformer.enc_output.*", "model.enc_output.*"),
        ("transformer.enc_output_norm.*", "model.enc_output_norm.*"),
        ("transformer.enc_out_bbox_embed.*", "model.encoder_output_bbox_embed.*"),
    ],
    original_only=[
        "bert.pooler.*",
        "bert.embeddings.position_ids",
        "label_enc.*",
        "backbone.0.layers.{}.blocks.{}.attn.relative_position_index",
    ],
    transformers_only=[
        "model.text_backbone.pooler.*",
        "model.text_backbone.embeddings.position_ids",
        "model.backbone.conv_encoder.model.swin.layernorm.*",
        "*.relative_position_index",
    ],
)
