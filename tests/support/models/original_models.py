"""Small models with random weights: one set as a transformers folder and as checkpoints of the original packages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from gazetteer.labeling.detect.grounding_dino.keys import GROUNDING_DINO
from gazetteer.labeling.detect.grounding_dino.settings import settings_of
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.weights.key_map import KeyMap

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
