"""How features are switched (labeling/interventions/causal.py)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen

from gazetteer.data.core.settings import Count, Effect, Natural, OneOf, Positive, setting, settings
from gazetteer.data.inputs.edits import WINDOWS

PLACES = ("everywhere", "cells")
PICKS = ("best", "sample")


@settings("causal")
class CausalConfig:
    """How features are switched, and on how many pictures."""

    images: Natural = setting(
        Effect.MEASUREMENTS,
        "Held-out pictures a feature is tried on at most; 0: as many as its labels take to have the `power`, at most "
        "four times those that suffice without noise, or as there are.",
        default=0,
    )
    power: Annotated[float, Gt(0), Lt(1)] = setting(
        Effect.MEASUREMENTS,
        "How often a label that makes its concept rise in `share` of the pictures is to be confirmed; a label that "
        "is not sure and has less power is undecided, not without effect.",
        default=0.9,
    )
    share: Annotated[float, Gt(0), Le(1)] = setting(
        Effect.MEASUREMENTS, "The share of pictures in which a rise is to be found.", default=0.3
    )
    window: Annotated[str, OneOf(tuple(WINDOWS))] = setting(
        Effect.MEASUREMENTS, "At which steps the feature is switched on.", default="early and middle"
    )
    strength: Positive = setting(
        Effect.MEASUREMENTS,
        "The dose, in 99th percentiles of the feature where it fires; the random feature beside it gets as much.",
        default=4.0,
    )
    place: Annotated[str, OneOf(PLACES)] = setting(
        Effect.MEASUREMENTS,
        "``everywhere``, or in ``cells``: a box around a cell in which the feature fires in the run, another one for "
        "every picture.",
        default="cells",
    )
    box: Annotated[float, Gt(0), Le(1)] = setting(
        Effect.MEASUREMENTS, "Side of that box as a share of the picture's.", default=0.5
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
    pick: Annotated[str, OneOf(PICKS)] = setting(
        Effect.MEASUREMENTS,
        "Which labelled features of a site come first: the ``best``, by their label's IoU, or a random ``sample``, "
        "whose verdicts stand for all of them.",
        default="best",
    )
    round: Count = setting(
        Effect.MEASUREMENTS, "Pictures after which it is asked which features are decided.", default=16
    )
    chunk: Count = setting(Effect.MEASUREMENTS, "Features that are done, and recorded, together.", default=8)
    windows: Annotated[tuple[Annotated[str, OneOf(tuple(WINDOWS))], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS, "Windows that `--sweep` tries.", default=("early", "middle", "early and middle")
    )
    strengths: Annotated[tuple[Positive, ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS, "Doses that `--sweep` tries.", default=(2.0, 4.0, 8.0, 16.0)
    )
    places: Annotated[tuple[Annotated[str, OneOf(PLACES)], ...], MinLen(1)] = setting(
        Effect.MEASUREMENTS, "Places that `--sweep` tries.", default=PLACES
    )
