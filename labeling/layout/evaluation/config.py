"""What is measured of layout prediction, and at what cost."""

from __future__ import annotations

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.settings import Count, Natural, settings


@settings("")
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

    train_images: Natural = 0
    heldout_images: Natural = 0
    every_step: bool = True
    baselines: bool = True
    resamples: Count = 1000
    top: Count = 5
    batch_size: Count = 8
    memory_mb: Count = 2000

    def __post_init__(self) -> None:
        if self.every_step and not self.baselines:
            raise InputError("Steps that the run did not store have to be sampled again; keep the baselines.")
