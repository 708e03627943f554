"""Small finders with random weights, in folders as transformers stores them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

WORDS = ["a photo of a hot air balloon", "sky cat tree dog grass sea sand road mountain sun moon cloud house car boat"]


def scrambled(model: nn.Module, std: float = 0.2) -> nn.Module:
    """The same model with weights large enough that its answers differ."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=std)
    return model.eval()


def tiny_sam3(folder: Path) -> str:
    """A SAM 3 of pictures of 56 px with 12 queries."""
    from transformers import CLIPTextConfig, Sam3Config, Sam3ImageProcessor, Sam3Model

    from benchmarks.scenes.text_to_image.tokens import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer([*WORDS, "detect flower objects"])
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, projection_dim=16, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    backbone: dict[str, Any] = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 4, "image_size": 56, "patch_size": 14, "window_size": 2, "global_attn_indexes": [0],
        "pretrain_image_size": 56,
    }  # fmt: skip
    vision = {
        "backbone_config": backbone, "fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "scale_factors": [4.0, 2.0, 1.0, 0.5],
    }  # fmt: skip
    layers = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 4, "intermediate_size": 32, "dropout": 0.0}
    config = Sam3Config(
        vision_config=vision, text_config=text.to_dict(), geometry_encoder_config=layers, detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4, "num_upsampling_stages": 3},
    )  # fmt: skip
    scrambled(Sam3Model(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Sam3ImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return str(folder)


def tiny_sam_hq(folder: Path) -> str:
    """A SAM-HQ of pictures of 64 px."""
    from transformers import SamHQConfig, SamHQModel, SamImageProcessor

    vision = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
        "window_size": 4, "mlp_ratio": 2.0, "global_attn_indexes": [0, 1], "output_channels": 32, "num_pos_feats": 16,
    }  # fmt: skip
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        "vit_dim": 16,
    }  # fmt: skip
    config = SamHQConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    scrambled(SamHQModel(config)).save_pretrained(folder)
    SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def tiny_edgetam(folder: Path) -> str:
    """An EdgeTAM of pictures of 64 px on a small RepViT."""
    from transformers import EdgeTamConfig, EdgeTamModel, Sam2ImageProcessor

    backbone = {
        "model_type": "timm_wrapper", "architecture": "repvit_m1.dist_in1k", "num_classes": 2,
        "model_args": {
            "in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3], "embed_dim": [8, 16, 32, 64],
            "depth": [1, 1, 1, 1],
        },
    }  # fmt: skip
    vision = {
        "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }  # fmt: skip
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 32,
    }
    config = EdgeTamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    scrambled(EdgeTamModel(config)).save_pretrained(folder)
    # What this version writes of the backbone it does not read again: it states no number of labels.
    stored = json.loads((folder / "config.json").read_text())
    stored["vision_config"]["backbone_config"]["num_classes"] = 2
    (folder / "config.json").write_text(json.dumps(stored))
    Sam2ImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


def tiny_omdet(folder: Path) -> str:
    """An OmDet-Turbo of pictures of 64 px with 12 queries."""
    from transformers import CLIPTextConfig, DetrImageProcessor, OmDetTurboConfig, OmDetTurboForObjectDetection

    from benchmarks.scenes.text_to_image.tokens import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer([*WORDS, "detect objects , ."])
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, projection_dim=16, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    backbone = {
        "model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2],
        "window_size": 4, "out_indices": [2, 3, 4],
    }  # fmt: skip
    config = OmDetTurboConfig(
        text_config=text.to_dict(), backbone_config=backbone, image_size=64, use_timm_backbone=False,
        encoder_hidden_dim=32, decoder_hidden_dim=32, vision_features_channels=[32, 32, 32],
        encoder_in_channels=[16, 32, 64], backbone_feat_channels=[16, 32, 64], class_embed_dim=16,
        task_encoder_hidden_dim=32, encoder_dim_feedforward=32, decoder_dim_feedforward=32, encoder_attention_heads=4,
        decoder_num_heads=4, decoder_num_layers=2,
        num_queries=12, num_projection_layers=1, encoder_layers=1, csp_activation="silu", text_projection_in_dim=16,
        text_projection_out_dim=16, apply_layernorm_after_vision_backbone=False,
    )  # fmt: skip
    scrambled(OmDetTurboForObjectDetection(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    DetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)
