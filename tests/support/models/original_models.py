"""Small models with random weights: one set as a transformers folder and as checkpoints of the original packages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.detect.grounding_dino.settings import GroundingDinoSettings, SwinSettings
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from tests.support.models.grounding_dino_keys import GROUNDING_DINO
from tests.support.models.key_map import KeyMap

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = ROOT / "data" / "scenes" / "models"
WORDS = ["sky", "grass", "hot", "air", "balloon", "cat", "dog", "tree"]


def shaken(model, scale=0.05):
    """The model with noise on every weight, so that no layer is left at zero or at one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=scale)
    return model


def random_detector(folder: Path) -> Path:
    from benchmarks.scenes.detector.model import build_model, build_tokenizer, export

    torch.manual_seed(0)
    export(shaken(build_model()), build_tokenizer(WORDS), folder)
    return folder


def random_segmenter(folder: Path) -> Path:
    from benchmarks.scenes.segmenter.model import build_model, export

    torch.manual_seed(0)
    export(shaken(build_model()), folder)
    return folder


def original_weights(folder: Path, keys: KeyMap) -> dict[str, torch.Tensor]:
    """The weights of a transformers folder under their original names, in single precision."""
    weights = keys.to_original(load_file(str(folder / "model.safetensors")))
    return {name: tensor.float() for name, tensor in weights.items()}


def original_detector(folder: Path, target: Path, **changes) -> DetectorConfig:
    """The configuration for running a transformers folder's weights through the original package."""
    from transformers import AutoConfig

    target.mkdir(exist_ok=True)
    torch.save({"model": original_weights(folder, GROUNDING_DINO)}, target / "detector.pth")
    settings = settings_of(AutoConfig.from_pretrained(folder), image_size=128, max_image_size=128)
    (target / "detector.json").write_text(json.dumps(dataclasses.asdict(settings)))
    return DetectorConfig(
        path=str(target / "detector.pth"), library="groundingdino", config=str(target / "detector.json"),
        text_encoder=str(folder), **changes,
    )  # fmt: skip


def both_detectors(folder: Path, target: Path, **changes):
    """The same weights through transformers and through the original package."""
    original = load_detector(original_detector(folder, target, **changes))
    return load_detector(DetectorConfig(path=str(folder), **changes)), original


def pictures(count: int, height: int = 128, width: int = 128) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def settings_of(config: Any, image_size: int = 800, max_image_size: int = 1333) -> GroundingDinoSettings:
    """The settings with which the weights of a transformers GroundingDinoConfig run in the original package.

    Raises:
        InputError: the configuration has no counterpart there.
    """
    swin = config.backbone_config
    backbone = SwinSettings(
        swin.embed_dim, tuple(swin.depths), tuple(swin.num_heads), swin.window_size, float(swin.mlp_ratio)
    )
    if config.encoder_attention_heads != config.decoder_attention_heads or not config.two_stage:
        raise InputError("The original package needs two stages, and as many heads in the decoder as in the encoder.")
    return GroundingDinoSettings(
        backbone=backbone,
        # stages are counted from one in transformers, where the stem is stage zero
        return_interm_indices=tuple(index - 1 for index in swin.out_indices),
        pe_temperatureH=config.positional_embedding_temperature,
        pe_temperatureW=config.positional_embedding_temperature,
        enc_layers=config.encoder_layers,
        dec_layers=config.decoder_layers,
        hidden_dim=config.d_model,
        dim_feedforward=config.encoder_ffn_dim,
        decoder_dim_feedforward=config.decoder_ffn_dim,
        nheads=config.encoder_attention_heads,
        num_queries=config.num_queries,
        num_feature_levels=config.num_feature_levels,
        enc_n_points=config.encoder_n_points,
        dec_n_points=config.decoder_n_points,
        dec_pred_bbox_embed_share=config.decoder_bbox_embed_share,
        two_stage_bbox_embed_share=config.two_stage_bbox_embed_share,
        embed_init_tgt=config.embedding_init_target,
        max_text_len=config.max_text_len,
        image_size=image_size,
        max_image_size=max_image_size,
    )
