"""How features are switched on and off (labeling/interventions/causal.py)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from gazetteer.data.core.settings import Count, Effect, Positive, setting, settings


@settings("causal")
class CausalConfig:
    """How features are switched."""

    images: Count = setting(
        Effect.MEASUREMENTS, "Shared pictures every feature is tried on, of the run's held-out split.", default=16
    )
    strength: Positive = setting(
        Effect.MEASUREMENTS,
        "Of *on*, in 99th percentiles of the feature where it fires. One feature of one block moves a picture "
        "little, as skip connections lead around the block, so that the default is far above what occurs.",
        default=16.0,
    )
    stride: Count = setting(
        Effect.MEASUREMENTS,
        "Sampler steps made as one from the stage's first on; brought down to what the sampler can do, 1 "
        "makes every step.",
        default=5,
    )
    unlabelled: Annotated[int, Ge(0), Le(4)] = setting(
        Effect.MEASUREMENTS,
        "Of four features tried at a site, so many have no label (those that fire most often).",
        default=1,
    )
    chunk: Count = setting(Effect.MEASUREMENTS, "Features that are done, and recorded, together.", default=8)
