"""By what pictures the labels of a run are judged."""

from __future__ import annotations

from typing import Annotated

from gazetteer.data.core.importing import with_source
from gazetteer.data.core.settings import Count, Effect, OneOf, setting, settings

HALVES = ("tuning", "report")


@settings("accuracy")
class AccuracyConfig:
    """By what pictures `gazetteer quality` judges labels."""

    truth: str = setting(
        Effect.MEASUREMENTS,
        "``module:function`` that gives pictures of which everything is known: (images, half) -> "
        "`data.inputs.exact.ExactPicture`s; empty: labels are not judged.",
        default="",
        kind=with_source,
    )
    images: Count = setting(
        Effect.MEASUREMENTS,
        "Pictures to judge by. The interval of how many labels are right is over concepts, not over these: of few of "
        "them it says too little.",
        default=300,
    )
    half: Annotated[str, OneOf(HALVES)] = setting(
        Effect.MEASUREMENTS,
        "``report``, or ``tuning``: the pictures that thresholds may be chosen on, disjoint from the others; of these "
        "`gazetteer quality` also says what other thresholds of `labels` would name.",
        default="report",
    )
