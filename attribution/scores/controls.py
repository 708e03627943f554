"""Names of estimators that command lines list, apart from what computes them."""

from __future__ import annotations

CONTROLS = ("random", "magnitude", "gradient", "wanda")
"""Estimators whose numbers rank weights and are not in units of J."""
