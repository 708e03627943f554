"""A small convolutional network that tells which concepts a picture shows, without asking where.

It is a second witness beside the detector: another architecture, trained apart from it, and on the softer pictures that
an autoencoder makes too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gazetteer.data.core.digests import digest_path
from gazetteer.data.scenes.weights import MODELS, read_config, read_weights, write_model
from gazetteer.data.scenes.world import CONCEPT_NAMES

DEFAULT_FOLDER = MODELS / "concept_classifier"
PRESENT = 0.5
"""A concept is shown where its probability reaches this."""

CELL = 8
"""Side of the squares of pixels that get scores of their own."""

_TOP = 4
"""How many of the best squares decide: the smallest moons touch about as many."""


class ConceptClassifier(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1], H and W multiples of 8, to one score per label [B, len(labels)]."""

    def __init__(
        self, labels: tuple[str, ...] = CONCEPT_NAMES, widths: tuple[int, int, int] = (16, 32, 64),
        dilations: tuple[int, ...] = (1, 2, 1),
    ) -> None:  # fmt: skip
        super().__init__()
        self.labels, self.widths, self.dilations = labels, widths, dilations
        first, second, third = widths
        self.stem = nn.Sequential(
            _layer(3, first, stride=2), _layer(first, second, stride=2), _layer(second, second),
            _layer(second, third, stride=2),
        )  # fmt: skip
        self.blocks = nn.ModuleList(_layer(third, third, dilation=dilation) for dilation in dilations)
        self.head = nn.Conv2d(third, len(labels), 1)

    def cells(self, pixels: Tensor) -> Tensor:
        """Scores of every square of 8 x 8 pixels, [B, len(labels), H / 8, W / 8]."""
        features = self.stem(pixels)
        for block in self.blocks:
            features = features + block(features)
        scores: Tensor = self.head(features)
        return scores

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores before the sigmoid."""
        return pooled(self.cells(pixels))

    @torch.no_grad()
    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability that each label is shown, [N, len(labels)], for uint8 pictures [N, H, W, 3].

        The labels do not exclude each other. One picture a call: an answer does not depend on its company, and many
        pictures take no more memory than one.
        """
        answers = np.empty((len(pictures), len(self.labels)), np.float32)
        for row, picture in enumerate(pictures):
            answers[row] = self(prepare(torch.tensor(picture[None]).permute(0, 3, 1, 2))).sigmoid()[0].numpy()
        return answers

    def shown(self, pictures: NDArray[np.uint8]) -> list[set[str]]:
        """The labels that every picture shows."""
        answers = self.probabilities(pictures) >= PRESENT
        return [{label for label, yes in zip(self.labels, row, strict=True) if yes} for row in answers]


def prepare(pixels: Tensor) -> Tensor:
    """Bytes 0..255 [N, 3, H, W] to floats in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def pooled(cells: Tensor) -> Tensor:
    """Scores of squares [B, L, h, w] to those of pictures [B, L]: the mean of the best four squares."""
    best: Tensor = cells.flatten(2).topk(_TOP, dim=2).values.mean(dim=2)
    return best


def _layer(narrow: int, wide: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    convolution = nn.Conv2d(narrow, wide, 3, stride=stride, padding=dilation, dilation=dilation)
    return nn.Sequential(convolution, nn.GroupNorm(8, wide), nn.SiLU())


def save(model: ConceptClassifier, folder: Path) -> None:
    """Write weights and configuration to a folder."""
    write_model(model, {"labels": model.labels, "widths": model.widths, "dilations": model.dilations}, folder)


def load(folder: Path = DEFAULT_FOLDER) -> ConceptClassifier:
    """Read a classifier, by default the one that comes with the package.

    Raises FileNotFoundError if the folder holds no classifier.
    """
    config = read_config(folder, labels=list, widths=list, dilations=list)
    model = ConceptClassifier(tuple(config["labels"]), tuple(config["widths"]), tuple(config["dilations"]))
    read_weights(model, folder)
    return model


def digest() -> str:
    """Of the weights that `load` reads where nothing else is named."""
    return digest_path(str(DEFAULT_FOLDER))
