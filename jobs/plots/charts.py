"""Plots of an evaluation as plain SVG text: curves with bands, bars, a matrix of shades, and tables of percentages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

COLOURS = ("#0b6e4f", "#c0392b", "#2b59c3", "#b7791f", "#6b4ba1", "#2a9d8f", "#555555", "#d1495b", "#8d6e63", "#3a3a3a")
GREY = "#bbb"
Point = tuple[float, float, float, float]
"""x, value, low, high."""


def curves(title: str, lines: Mapping[str, Sequence[Point]], x_label: str, y_label: str) -> str:
    """Lines over evenly spaced x values (a share's scale is logarithmic), values 0..1 (more is cut off), with bands."""
    xs = sorted({point[0] for line in lines.values() for point in line})
    across = {x: 60 + 400 * (i + 0.5) / len(xs) for i, x in enumerate(xs)}

    def down(value: float) -> float:
        return 250 - 200 * min(1.1, max(0.0, value))

    body = [f'<line x1="60" x2="460" y1="{down(v)}" y2="{down(v)}" stroke="#ddd"/>' for v in (0, 0.25, 0.5, 0.75, 1)]
    body += [_text(54, down(v) + 4, f"{v:g}", "end") for v in (0, 0.25, 0.5, 0.75, 1)]
    body += [_text(x, 268, f"{value:g}", "middle") for value, x in across.items()]
    for nth, (name, line) in enumerate(lines.items()):
        colour = COLOURS[nth % len(COLOURS)]
        for x, _, low, high in line:
            body.append(
                f'<line x1="{across[x]}" x2="{across[x]}" y1="{down(low)}" y2="{down(high)}" stroke="{colour}" '
                'stroke-opacity="0.35" stroke-width="3"/>'
            )
        path = " ".join(f"{across[x]:.1f},{down(value):.1f}" for x, value, _, _ in line)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(f'<rect x="475" y="{42 + 18 * nth}" width="10" height="10" fill="{colour}"/>')
        body.append(_text(490, 51 + 18 * nth, name))
    body += [_text(260, 288, x_label, "middle"), _text(60, 40, y_label)]
    return _page(title, 620, 300, body)


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Stacked horizontal bars, one per group; values of a group sum to 1 or less."""
    kinds = list(dict.fromkeys(kind for values in groups.values() for kind in values))
    body = []
    for row, (name, values) in enumerate(groups.items()):
        left, top = 150.0, 40 + 20 * row
        body.append(_text(144, top + 12, name, "end"))
        for kind, value in values.items():
            colour = COLOURS[kinds.index(kind) % len(COLOURS)]
            body.append(f'<rect x="{left:.1f}" y="{top}" width="{400 * value:.1f}" height="15" fill="{colour}"/>')
            left += 400 * value
    for nth, kind in enumerate(kinds):
        body.append(f'<rect x="565" y="{42 + 18 * nth}" width="10" height="10" fill="{COLOURS[nth % len(COLOURS)]}"/>')
        body.append(_text(580, 51 + 18 * nth, kind))
    return _page(title, 760, max(60 + 20 * len(groups), 60 + 18 * len(kinds)), body)


def matrix(title: str, rows: Mapping[str, Mapping[str, float | None]], grey: Collection[tuple[str, str]] = ()) -> str:
    """A table of shades: 1 is white, 0 dark, more than 1 tinted blue; blank where there was nothing to measure.

    Args:
        grey: (row, column) of cells that are left grey and empty, as too little was measured.
    """
    columns = sorted({name for row in rows.values() for name in row} | set(rows))
    body = [
        f'<text x="{165 + 34 * j}" y="95" transform="rotate(-50 {165 + 34 * j} 95)" font-size="11">{escape(c)}</text>'
        for j, c in enumerate(columns)
    ]
    for i, (name, row) in enumerate(rows.items()):
        top = 105 + 24 * i
        body.append(_text(140, top + 16, name, "end"))
        for j, column in enumerate(columns):
            value = row.get(column)
            if (name, column) in grey:
                body.append(f'<rect x="{148 + 34 * j}" y="{top}" width="32" height="22" fill="{GREY}"/>')
                continue
            if value is None:
                continue
            level = round(255 * min(1.0, max(0.0, value)))
            fill = f"rgb({level},{level},{level})" if value <= 1 else "#cfe3ff"
            ink = "#000" if level > 120 else "#fff"
            body.append(f'<rect x="{148 + 34 * j}" y="{top}" width="32" height="22" fill="{fill}" stroke="#ccc"/>')
            body.append(
                f'<text x="{164 + 34 * j}" y="{top + 15}" text-anchor="middle" font-size="10" fill="{ink}">'
                f"{value:.2f}</text>"
            )
    return _page(title, 170 + 34 * len(columns), 120 + 24 * len(rows), body)


def percentages(
    title: str, panels: Mapping[str, tuple[str, Mapping[str, Mapping[str, float]]]], columns: Sequence[str],
    across: int = 2,
) -> str:  # fmt: skip
    """Tables of shares side by side, `across` to a line: in % (under 0.5 % empty), full colour from 50 % on.

    Args:
        panels: by heading the colour and, by row and column, the shares: no entry of a row that is there is 0. All
            panels have the same rows; one that a panel lacks is grey in it.
        columns: of every panel. The cells of a row's own column are framed.
    """
    names = sorted({name for _, table in panels.values() for name in table})
    wide, high = 160 + 28 * len(columns), 120 + 20 * len(names)
    body = []
    for nth, (heading, (colour, table)) in enumerate(panels.items()):
        left, top = 105 + nth % across * wide, 110 + nth // across * high
        body.append(_text(left, top - 68, heading))
        for j, column in enumerate(columns):
            x = left + 28 * j + 14
            body.append(
                f'<text transform="translate({x},{top - 5}) rotate(-50)" font-size="11">{escape(column)}</text>'
            )
        for i, name in enumerate(names):
            body.append(_text(left - 6, top + 20 * i + 14, name, "end"))
            for j, column in enumerate(columns):
                share = table[name].get(column, 0.0) if name in table else None
                fill = GREY if share is None else colour
                opacity = 1.0 if share is None else min(1.0, 2 * share)
                x, y, frame = left + 28 * j, top + 20 * i, "#000" if name == column else "#ddd"
                body.append(
                    f'<rect x="{x + 1}" y="{y + 1}" width="26" height="18" fill="{fill}" fill-opacity="{opacity:.2f}" '
                    f'stroke="{frame}"/>'
                )
                if share is not None and share >= 0.005:
                    ink = "#fff" if opacity > 0.6 else "#000"
                    body.append(f'<text x="{x + 14}" y="{y + 14}" text-anchor="middle" font-size="10" fill="{ink}">'
                                f"{100 * share:.0f}</text>")  # fmt: skip
    lines = -(-len(panels) // across)
    return _page(title, 20 + wide * min(across, len(panels)), 40 + high * lines, body)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11">{escape(text)}</text>'


def _page(title: str, width: int, height: int, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<text x="12" y="20" font-size="13" font-weight="bold">{escape(title)}</text>{"".join(body)}</svg>\n'
    )
