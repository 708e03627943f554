"""Objects: the ten classes of Imagenette, read by a ResNet-50 (ESD Table 2, P2 section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gazetteer.attribution.protocols.pictures import read_picture
from gazetteer.attribution.protocols.prompts import GUIDANCE, ProtocolPrompt
from gazetteer.data.core.errors import InputError, first_line

CLASSES = {
    "tench": 0, "English springer": 217, "cassette player": 482, "chain saw": 491, "church": 497, "French horn": 566,
    "garbage truck": 569, "gas pump": 571, "golf ball": 574, "parachute": 701,
}  # fmt: skip
"""Imagenette's classes and their indices in ImageNet-1k."""


def prompts(images: int, seed: int = 0, guidance: float = GUIDANCE, size: int = 0) -> list[ProtocolPrompt]:
    """`images` prompts of each class, "an image of a {class}", seeds counted on from `seed` over all of them."""
    names = [name for name in CLASSES for _ in range(images)]
    return [
        ProtocolPrompt(f"an image of a {name}", seed + number, guidance, size, size, name)
        for number, name in enumerate(names)
    ]


class ImageNetClassifier:
    """A torchvision classifier with its own preprocessing; P2 uses resnet50 with IMAGENET1K_V2."""

    def __init__(self, name: str = "resnet50", weights: str = "IMAGENET1K_V2") -> None:
        """Load.

        Args:
            name: of a torchvision classifier.
            weights: a name of its published weights (downloaded by torchvision), or a file with a state dict.

        Raises:
            InputError: no such classifier or weights, or they cannot be had.
        """
        from torchvision.models import get_model, get_model_weights

        try:
            published = get_model_weights(name)
            if Path(weights).is_file():
                model = get_model(name, weights=None)
                model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
                transforms = published["DEFAULT"].transforms()
            else:
                model = get_model(name, weights=published[weights])
                transforms = published[weights].transforms()
        except Exception as error:  # a damaged file makes its loader fail in any way
            raise InputError(
                f"The classifier {name} with weights {weights} cannot be had: {first_line(error)}."
            ) from error
        self.model: nn.Module = model.eval()
        self.transforms: Any = transforms

    @torch.inference_mode()
    def top1(self, paths: Sequence[Path], batch: int = 32) -> list[int]:
        """The most probable class of every picture, as ImageNet-1k indices."""
        classes: list[int] = []
        for start in range(0, len(paths), batch):
            pictures = [torch.tensor(read_picture(path)).permute(2, 0, 1) for path in paths[start : start + batch]]
            classes += self.model(torch.stack([self.transforms(p) for p in pictures])).argmax(1).tolist()
        return classes


def tally(asked: Sequence[ProtocolPrompt], top1: Sequence[int], target: str) -> dict[str, float | int]:
    """``target`` and ``others``: top-1 accuracy on the erased class and on the rest, 0..1, and how many ``pictures``.

    Raises:
        InputError: the target is not one of the classes.
    """
    if target not in CLASSES:
        raise InputError(f"{target!r} is not a class of Imagenette: {', '.join(CLASSES)}.")
    right = np.array([CLASSES[prompt.about] == named for prompt, named in zip(asked, top1, strict=True)], dtype=float)
    of_target = np.array([prompt.about == target for prompt in asked])
    return {
        "target": float(right[of_target].mean()), "others": float(right[~of_target].mean()), "pictures": len(right),
    }  # fmt: skip
