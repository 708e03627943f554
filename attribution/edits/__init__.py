"""Edits of weights: how they are chosen, what they are at rest, and how they are applied and undone."""
