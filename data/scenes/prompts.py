"""Prompts of scenes that no model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from gazetteer.data.scenes.captions import write_caption
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.world import EVAL_SEEDS


def prompt_pool(n: int, seed: int = 0, views: Sequence[str] = ()) -> list[str]:
    """`n` captions of scenes outside the training seeds, seen from `views`, planned but never painted."""
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    rng = Random(seed)
    layouts = (sample_layout(EVAL_SEEDS[rng.randrange(len(EVAL_SEEDS))], views) for _ in range(n))
    return [write_caption(layout, layout.items) for layout in layouts]
