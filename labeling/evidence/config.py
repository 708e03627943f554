"""Thresholds by which masks and codes become evidence."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt

from gazetteer.data.core.settings import Effect, setting, settings


@settings("evidence")
class EvidenceConfig:
    """Thresholds of the per-image rule."""

    binarize: Annotated[float, Ge(0), Lt(1)] = setting(
        Effect.LABELS, "A normalised activation above this (strictly) belongs to the binary map.", default=0.1
    )
    hit_iou: Annotated[float, Ge(0), Lt(1)] = setting(
        Effect.LABELS, "An IoU above this (strictly) is a hit.", default=0.5
    )
