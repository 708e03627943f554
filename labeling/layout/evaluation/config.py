"""What is measured of layout prediction, and at what cost."""

from __future__ import annotations

from dataclasses import dataclass

from gazetteer.data.core.errors import InputError


@dataclass(frozen=True)
class LayoutEvaluationConfig:
    """What is measured, and at what cost.

    Attributes:
        train_images, heldout_images: pictures sampled again for everything that needs more than the stored codes;
            0 takes all of the run. With stored codes all discovery pictures are used for fitting in any case.
        every_step: all sampler steps; otherwise only those the run stored.
        baselines: whether to sample again at all; without, only what needs no more than the stored codes is measured.
        resamples: bootstrap samples of the pictures.
        top: features a cell gives to the published method.
        batch_size: pictures sampled together.
        memory_mb: what the maps of all methods may take. Held-out pictures are measured in parts that fit; everything
            is fitted on at most as many discovery pictures as fit.
    """

    train_images: int = 0
    heldout_images: int = 0
    every_step: bool = True
    baselines: bool = True
    resamples: int = 1000
    top: int = 5
    batch_size: int = 8
    memory_mb: int = 2000

    def __post_init__(self) -> None:
        for name, low in (("train_images", 0), ("heldout_images", 0), ("resamples", 1), ("top", 1), ("batch_size", 1),
                          ("memory_mb", 1)):  # fmt: skip
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, not {getattr(self, name)}.")
        if self.every_step and not self.baselines:
            raise InputError("Steps that the run did not store have to be sampled again; keep the baselines.")
