"""Predicted layouts as the page draws them: levels and masks of the named things, in the things' own colours."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gazetteer.labeling.atlas.inks import Ink
from gazetteer.labeling.layout.model import LayoutPrediction
from gazetteer.labeling.layout.run import mentions
from gazetteer.labeling.vocabulary.synonyms import Synonyms

GREY: Ink = (128, 128, 128)
"""Of what has no colour of its own."""
LIKELY = 4
"""Things shown of a prompt that names none: those most probably in the picture."""


def shown_concepts(layout: LayoutPrediction, prompt: str, synonyms: Synonyms) -> list[int]:
    """Numbers of the concepts that the prompt names; where it names none, of the likeliest."""
    named = np.flatnonzero(mentions([prompt], layout.concepts, synonyms)[0])
    chosen = named if len(named) else np.sort(np.argsort(-layout.whether[0], kind="stable")[:LIKELY])
    return [int(number) for number in chosen]


def layout_event(
    layout: LayoutPrediction, prompt: str, colours: Mapping[str, Ink], synonyms: Synonyms
) -> dict[str, Any]:
    """One step's maps: ``levels`` 0 to 255 and ``masks`` 0 or 1, each [concepts, height, width] as base64."""
    chosen = shown_concepts(layout, prompt, synonyms)
    where = layout.where[0, chosen]
    return {
        "t": round(layout.t, 4),
        "concepts": [layout.concepts[c] for c in chosen],
        "inks": [colours.get(layout.concepts[c], GREY) for c in chosen],
        "height": where.shape[1],
        "width": where.shape[2],
        "levels": _bytes(np.round(255.0 * where.clip(0.0, 1.0))),
        "masks": _bytes(where >= layout.thresholds[0, chosen][:, None, None]),
    }


def _bytes(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode("ascii")
