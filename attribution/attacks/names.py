"""The attacks by name."""

from __future__ import annotations

INTACT = "intact"
"""Stands for the model without any edit, which is attacked too."""
ATTACKS = ("named", "paraphrase", "words", "unlearndiffatk", "embedding", "relearn_concept", "relearn_other")
"""``named`` is none: the prompts as they are."""
FLOOR = "empty"
"""The intact model's empty prompt: what is shown without an attack or a name, measured beside every attack."""
