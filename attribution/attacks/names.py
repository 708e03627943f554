"""The attacks by name."""

from __future__ import annotations

INTACT = "intact"
"""Stands for the model without any edit, which is attacked too."""
ATTACKS = ("named", "paraphrase", "words", "unlearndiffatk", "embedding", "relearn_concept", "relearn_other")
"""``named`` is none: the prompts as they are. The intact model's ``empty`` prompt is beside them the floor."""
