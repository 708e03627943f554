"""A tiny convolutional network that tells in which style a picture was painted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gazetteer.data.core.digests import digest_path
from gazetteer.data.scenes.weights import MODELS, read_config, read_weights, write_model
from gazetteer.data.scenes.world import STYLE_NAMES

PLAIN = "plain"
LABELS: tuple[str, ...] = (PLAIN, *STYLE_NAMES)
DEFAULT_FOLDER = MODELS / "style_classifier"


class StyleClassifier(nn.Module):
    """Pictures [B, 3, S, S] in [-1, 1], S = `size`, to one score per label [B, len(labels)]."""

    def __init__(
        self,
        labels: tuple[str, ...] = LABELS,
        widths: tuple[int, ...] = (12, 24, 40, 56),
        size: int = 64,
    ) -> None:
        super().__init__()
        self.labels, self.widths, self.size = labels, widths, size
        layers: list[nn.Module] = []
        for narrow, wide in zip((3, *widths), widths, strict=False):
            layers += [
                nn.Conv2d(narrow, wide, 3, stride=2, padding=1),
                nn.GroupNorm(4, wide),
                nn.SiLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], len(labels))

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores before the softmax; mean and peak of every feature decide."""
        features = self.features(pixels)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        scores: Tensor = self.head(pooled)
        return scores

    def prepare(self, pictures: NDArray[np.uint8]) -> Tensor:
        """uint8 [N, H, W, 3] to floats [N, 3, size, size] in [-1, 1], averaged over areas."""
        pixels = torch.tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        return nn.functional.interpolate(pixels, size=(self.size, self.size), mode="area")

    @torch.no_grad()
    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of every label, [N, len(labels)], for uint8 pictures [N, H, W, 3]."""
        result: NDArray[np.float32] = self(self.prepare(pictures)).softmax(dim=1).numpy()
        return result

    def classify(self, pictures: NDArray[np.uint8]) -> list[str]:
        """The most probable label of every picture; "plain" where no style was applied."""
        return [self.labels[best] for best in self.probabilities(pictures).argmax(axis=1)]


def save(model: StyleClassifier, folder: Path) -> None:
    """Write weights and configuration to a folder."""
    write_model(model, {"labels": model.labels, "widths": model.widths, "size": model.size}, folder)


def load(folder: Path = DEFAULT_FOLDER) -> StyleClassifier:
    """Read a classifier, by default the one that comes with the package.

    Raises FileNotFoundError if the folder holds no classifier.
    """
    config = read_config(folder, labels=list, widths=list, size=int)
    model = StyleClassifier(tuple(config["labels"]), tuple(config["widths"]), config["size"])
    read_weights(model, folder)
    return model


def digest() -> str:
    """Of the weights that `load` reads where nothing else is named."""
    return digest_path(str(DEFAULT_FOLDER))
