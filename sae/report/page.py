"""A page about a set of autoencoders: a table of their metrics, their curves and densities; one file, no script."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.sites import SITE_COLUMNS, Port
from gazetteer.data.core.svg import svg
from gazetteer.sae.training.metrics import DENSITIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 2.9, 1.5
"""Of one curve, in inches."""
BLUE, RED = "#2563a8", "#bb4444"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } tbody tr:nth-child(odd) { background: #f3f5f7 }
h2 { font-size: 1rem } img { max-width: 100% } .table { overflow-x: auto }
"""
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Sparse autoencoders</title>'
)
COLUMNS = {
    "n": ("features", "{:,}"),
    "k": ("k", "{}"),
    "steps": ("steps", "{:,}"),
    "scaled_mse": ("scaled MSE", "{:.4f}"),
    "explained_variance": ("explained variance", "{:.1%}"),
    "cosine": ("cosine", "{:.3f}"),
    "l0": ("L0", "{:.2f}"),
    "dead_share": ("dead", "{:.1%}"),
    "loss_recovered": ("loss recovered (zero)", "{:.1%}"),
    "loss_recovered_mean": ("loss recovered (mean)", "{:.1%}"),
}


def render(metrics: Sequence[dict[str, Any]], history: Sequence[dict[str, Any]]) -> str:
    """The page, from the rows of `gazetteer.sae.report.report.METRICS` and `gazetteer.sae.report.report.HISTORY`."""
    head = "".join(f"<th>{title}</th>" for title, _ in COLUMNS.values())
    body = "".join(f"<tr><td>{_name(row)}</td>{''.join(_cell(row, key) for key in COLUMNS)}</tr>" for row in metrics)
    sections = "".join(_section(row, [step for step in history if _site(step) == _site(row)]) for row in metrics)
    return (
        f"{HEAD}<style>{STYLE}</style><h1>Sparse autoencoders</h1>"
        "<p>Measured on held-out pictures. Scaled MSE: squared error in units of the variance. Dead: features that "
        "fired on none of them. Loss recovered: how much of the harm to what the model predicts is undone when the "
        "block's update is replaced by the reconstruction instead of zero or its mean.</p>"
        f'<div class="table"><table><thead><tr><th>site</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{sections}</html>\n"
    )


def _name(row: dict[str, Any]) -> str:
    port = Port(row["block"], row["stream"], row["signal"])
    return html.escape(f"{port} · {row['branch']} · t = {row['t']:.2f}")


def _site(row: dict[str, Any]) -> list[Any]:
    """What tells sites apart; two of them may agree in the two decimals of t that are shown."""
    return [row[name] for name in SITE_COLUMNS]


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return f"<td>{'–' if value is None else COLUMNS[key][1].format(value)}</td>"


def _section(row: dict[str, Any], history: Sequence[dict[str, Any]]) -> str:
    """A site's curves over the steps and its histogram of densities."""
    drawn = figure(row, history)
    if drawn is None:
        return ""
    data = base64.b64encode(svg(drawn)).decode()
    return f'<h2>{_name(row)}</h2><img alt="training of {_name(row)}" src="data:image/svg+xml;base64,{data}">'


def figure(row: dict[str, Any], history: Sequence[dict[str, Any]]) -> Figure | None:
    """One panel a curve that has at least two points, and the histogram; None where there is nothing to draw."""
    from matplotlib.figure import Figure

    curves = {}
    for key, title in (("mse", "scaled MSE of the batch"), ("auxk", "AuxK"), ("dead", "dead features")):
        points = [(step["step"], step[key]) for step in history if step[key] is not None and math.isfinite(step[key])]
        if len(points) > 1:
            curves[f"{title}, by step"] = points
    density = row.get("density")
    panels = len(curves) + bool(density)
    if not panels:
        return None
    drawn = Figure(figsize=(WIDTH * panels, HEIGHT))
    drawn.subplots_adjust(left=0.16 / panels, right=1 - 0.04 / panels, bottom=0.22, top=0.85, wspace=0.3)
    for place, (title, points) in enumerate(curves.items(), start=1):
        axes = drawn.add_subplot(1, panels, place)
        axes.plot(*zip(*points, strict=True), color=BLUE)
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=8)
    if density:
        axes = drawn.add_subplot(1, panels, panels)
        classes = ["never", *(f"{border:g}".replace("e-0", "e-") for border in DENSITIES[1:])]
        bars = axes.bar(classes, density, color=[RED] + [BLUE] * (len(density) - 1))
        axes.bar_label(bars, fontsize=6)
        axes.set_title("features by how often they fire, at most", fontsize=8)
    for axes in drawn.axes:
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    return drawn
