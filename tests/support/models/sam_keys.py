"""The weights of SAM in `segment-anything` and in transformers (memory and saved files name them alike)."""

from __future__ import annotations

from tests.support.models.key_map import KeyMap, Rule


def _encoder() -> list[Rule]:
    theirs, ours = "image_encoder", "vision_encoder"
    neck = ("conv1", "layer_norm1", "conv2", "layer_norm2")
    return [
        (f"{theirs}.pos_embed", f"{ours}.pos_embed"),
        (f"{theirs}.patch_embed.proj.*", f"{ours}.patch_embed.projection.*"),
        *((f"{theirs}.blocks.{{}}.norm{i}.*", f"{ours}.layers.{{}}.layer_norm{i}.*") for i in (1, 2)),
        (f"{theirs}.blocks.{{}}.*", f"{ours}.layers.{{}}.*"),
        *((f"{theirs}.neck.{i}.*", f"{ours}.neck.{name}.*") for i, name in enumerate(neck)),
    ]


def _prompts() -> list[Rule]:
    place = "prompt_encoder.mask_downscaling"
    layers = {0: "conv1", 1: "layer_norm1", 3: "conv2", 4: "layer_norm2", 6: "conv3"}
    return [
        ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
        ("prompt_encoder.point_embeddings.{}.*", "prompt_encoder.point_embed.{}.*"),
        ("prompt_encoder.not_a_point_embed.*", "prompt_encoder.not_a_point_embed.*"),
        ("prompt_encoder.no_mask_embed.*", "prompt_encoder.no_mask_embed.*"),
        *((f"{place}.{i}.*", f"prompt_encoder.mask_embed.{name}.*") for i, name in layers.items()),
    ]


def _head(place: str) -> list[Rule]:
    """A head of three linear layers."""
    names = ("proj_in", "layers.0", "proj_out")
    return [(f"{place}.layers.{i}.*", f"{place}.{name}.*") for i, name in enumerate(names)]


def _decoder() -> list[Rule]:
    layer = "mask_decoder.transformer.layers.{}"
    upscaling = {0: "upscale_conv1", 1: "upscale_layer_norm", 3: "upscale_conv2"}
    return [
        ("mask_decoder.iou_token.*", "mask_decoder.iou_token.*"),
        ("mask_decoder.mask_tokens.*", "mask_decoder.mask_tokens.*"),
        *((f"{layer}.norm{i}.*", f"{layer}.layer_norm{i}.*") for i in (1, 2, 3, 4)),
        (f"{layer}.*", f"{layer}.*"),
        ("mask_decoder.transformer.norm_final_attn.*", "mask_decoder.transformer.layer_norm_final_attn.*"),
        (
            "mask_decoder.transformer.final_attn_token_to_image.*",
            "mask_decoder.transformer.final_attn_token_to_image.*",
        ),
        *((f"mask_decoder.output_upscaling.{i}.*", f"mask_decoder.{name}.*") for i, name in upscaling.items()),
        *_head("mask_decoder.output_hypernetworks_mlps.{}"),
        *_head("mask_decoder.iou_prediction_head"),
    ]


SAM = KeyMap(
    "SAM",
    [*_encoder(), *_prompts(), *_decoder()],
    original_only=["pixel_mean", "pixel_std"],
    # a tied copy of the shared embedding
    transformers_only=["prompt_encoder.shared_embedding.positional_embedding"],
)
