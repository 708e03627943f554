"""How the small classifiers of the world lie on disk: a folder with their weights and their configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

MODELS = Path(os.environ.get("GAZETTEER_SCENES_MODELS") or Path(__file__).parent / "models")
"""The world's models: those that ship, or others of the same layout, as while a world is trained."""

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def write_model(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write the weights of `model` and what it takes to build it again."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / _WEIGHTS)
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that `write_model` wrote; raises FileNotFoundError if the folder holds none."""
    config: dict[str, Any] = json.loads((folder / _CONFIG).read_text())
    return config


def read_weights(model: nn.Module, folder: Path) -> None:
    """Fill `model` with the weights in the folder and set it to answering."""
    model.load_state_dict(load_file(folder / _WEIGHTS))
    model.eval()
