"""How features are switched on and off (labeling/interventions/causal.py)."""

from __future__ import annotations

from dataclasses import dataclass

from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
class CausalConfig:
    """How features are switched.

    Attributes:
        images: shared pictures every feature is tried on, of the run's held-out split.
        strength: of *on*, in 99th percentiles of the feature where it fires. One feature of one block moves a picture
            little, as skip connections lead around the block, so that the default is far above what occurs.
        stride: sampler steps made as one from the stage's first on; brought down to what the sampler can do, 1 makes
            every step.
        unlabelled: of four features tried at a site, so many have no label (those that fire most often).
        chunk: features that are done, and recorded, together.
    """

    images: int = 16
    strength: float = 16.0
    stride: int = 5
    unlabelled: int = 1
    chunk: int = 8

    def __post_init__(self) -> None:
        if min(self.images, self.stride, self.chunk) < 1 or self.strength <= 0 or not 0 <= self.unlabelled <= 4:
            raise InputError(
                "causal: images, stride and chunk must be at least 1, strength positive, unlabelled 0 to 4."
            )
