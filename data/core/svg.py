"""Figures of matplotlib as SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def svg(figure: Figure, **options: Any) -> bytes:
    """A figure as SVG; equal figures give equal bytes: no date, no random ids, and texts stay texts.

    options: further ones of `Figure.savefig`.
    """
    import matplotlib

    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gazetteer"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None}, **options)
    return drawn.getvalue()
