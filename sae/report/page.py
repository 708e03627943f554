"""A page about a set of autoencoders: a table of their metrics, their curves and densities; one file, no script."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from gazetteer.sae.training.metrics import DENSITIES

WIDTH, HEIGHT, LEFT, BOTTOM = 280, 120, 40, 18
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } tbody tr:nth-child(odd) { background: #f3f5f7 }
section { display: flex; flex-wrap: wrap; gap: 1rem; align-items: end; margin: 0 0 1.5rem } h2 { font-size: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem; color: #555 } svg text { font-size: 10px; fill: #555 }
.table { overflow-x: auto }
"""
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
    sections = "".join(_section(row, [one for one in history if _name(one) == _name(row)]) for row in metrics)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sparse autoencoders</title><style>{STYLE}</style><h1>Sparse autoencoders</h1>"
        "<p>Measured on held-out pictures. Scaled MSE: squared error in units of the variance. Dead: features that "
        "fired on none of them. Loss recovered: how much of the harm to the predicted noise is undone when the block's "
        "update is replaced by the reconstruction instead of zero or its mean.</p>"
        f'<div class="table"><table><thead><tr><th>site</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{sections}</html>\n"
    )


def _name(row: dict[str, Any]) -> str:
    return html.escape(f"{row['block']} · {row['branch']} · t = {row['t']:.2f}")


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return f"<td>{'–' if value is None else COLUMNS[key][1].format(value)}</td>"


def _section(row: dict[str, Any], history: Sequence[dict[str, Any]]) -> str:
    """A site's curves over the steps and its histogram of densities."""
    figures = []
    for key, title in (("mse", "scaled MSE of the batch"), ("auxk", "AuxK"), ("dead", "dead features")):
        points = [(one["step"], one[key]) for one in history if one[key] is not None and math.isfinite(one[key])]
        if len(points) > 1:
            figures.append(_figure(curve(points), f"{title}, by step"))
    if row.get("density"):
        figures.append(_figure(bars(row["density"]), "features by the share of vectors they fire on"))
    return f"<h2>{_name(row)}</h2><section>{''.join(figures)}</section>" if figures else ""


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def curve(points: Sequence[tuple[float, float]]) -> str:
    """An SVG line through (step, value) points, the value axis from 0 to the largest value."""
    last, top = max(step for step, _ in points) or 1, max(max(value for _, value in points), 1e-12)
    path = " ".join(
        f"{LEFT + (WIDTH - LEFT - 8) * step / last:.1f},{8 + (HEIGHT - BOTTOM - 8) * (1 - max(value, 0) / top):.1f}"
        for step, value in points
    )
    labels = f'<text x="{LEFT - 4}" y="14" text-anchor="end">{top:.3g}</text>'
    labels += f'<text x="{LEFT - 4}" y="{HEIGHT - BOTTOM}" text-anchor="end">0</text>'
    labels += f'<text x="{WIDTH - 8}" y="{HEIGHT - 4}" text-anchor="end">{last:,.0f}</text>'
    line = f'<polyline points="{path}" fill="none" stroke="#2563a8" stroke-width="1.5"/>'
    return _svg(labels + line)


def bars(counts: Sequence[int]) -> str:
    """An SVG histogram of features per class of `metrics.DENSITIES`; the first are those that never fire."""
    titles = ["never", *(f"≤ {border:g}" for border in DENSITIES[1:])]
    step, top = (WIDTH - LEFT - 8) / len(counts), max(*counts, 1)
    parts = [f'<text x="{LEFT - 4}" y="14" text-anchor="end">{top:,}</text>']
    for i, (count, title) in enumerate(zip(counts, titles, strict=True)):
        tall = (HEIGHT - BOTTOM - 8) * count / top
        left = LEFT + i * step
        parts.append(
            f'<rect x="{left:.1f}" y="{HEIGHT - BOTTOM - tall:.1f}" width="{step - 3:.1f}" height="{tall:.1f}" '
            f'fill="{"#b44" if i == 0 else "#2563a8"}"><title>{title}: {count:,} features</title></rect>'
            f'<text x="{left + step / 2 - 1:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{title}</text>'
        )
    return _svg("".join(parts))


def _svg(content: str) -> str:
    baseline = f'<path d="M{LEFT} 8V{HEIGHT - BOTTOM}H{WIDTH - 8}" fill="none" stroke="#bbb"/>'
    return f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{baseline}{content}</svg>'
