"""Plots of an evaluation by matplotlib: curves with intervals, stacked bars, matrices of shades, tables of percents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gazetteer.data.core.files.own_files import OwnFiles
from gazetteer.data.core.svg import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e4f", "#c0392b", "#2b59c3", "#b7791f", "#6b4ba1", "#2a9d8f", "#555555", "#d1495b", "#8d6e63", "#3a3a3a")
GREY, BLUE = "#bbbbbb", "#cfe3ff"
MOST = 1.1
"""The highest value that curves show; what is more is drawn there."""
_LEAST_SHOWN = 0.005
_BESIDE = 1.06
"""From line to line of a logarithmic scale, that their bars are told apart."""
Point = tuple[float, float, float, float]
"""x, value, low, high."""


def curves(
    title: str, lines: Mapping[str, Sequence[Point]], x_label: str, y_label: str, *, logarithmic: bool = False
) -> Figure:
    """Lines with bars, values 0..1 (more is cut off).

    Args:
        lines: by name the points of each, in any order.
        logarithmic: x values, above 0, lie where they are on a logarithmic scale, lines a little beside one another;
            else they are evenly spaced.
    """
    xs = sorted({point[0] for line in lines.values() for point in line})
    place = {x: nth for nth, x in enumerate(xs)}
    figure, axes = _figure(title, 6.2, 3.4)
    for nth, (name, line) in enumerate(lines.items()):
        points = sorted(line)
        value, low, high = (np.clip([p[i] for p in points], 0.0, MOST) for i in (1, 2, 3))
        beside = _BESIDE ** (nth - (len(lines) - 1) / 2)
        axes.errorbar(
            [p[0] * beside if logarithmic else place[p[0]] for p in points],
            value, yerr=[np.maximum(value - low, 0.0), np.maximum(high - value, 0.0)],
            label=name, color=COLOURS[nth % len(COLOURS)], marker=".", elinewidth=3, ecolor=f"{COLOURS[nth % 10]}59",
        )  # fmt: skip
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    else:
        axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set_ylim(-0.02, MOST)
    axes.grid(axis="y", color="#dddddd")
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> Figure:
    """Stacked horizontal bars, one per group, the first on top; values of a group sum to 1 or less."""
    kinds = list(dict.fromkeys(kind for values in groups.values() for kind in values))
    figure, axes = _figure(title, 7.6, max(0.8 + 0.22 * len(groups), 0.8 + 0.2 * len(kinds)))
    names, left = list(groups), np.zeros(len(groups))
    for nth, kind in enumerate(kinds):
        values = np.array([groups[name].get(kind, 0.0) for name in names])
        axes.barh(range(len(names)), values, left=left, label=kind, color=COLOURS[nth % len(COLOURS)])
        left += values
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def matrix(
    title: str, rows: Mapping[str, Mapping[str, float | None]], grey: Collection[tuple[str, str]] = ()
) -> Figure:
    """A table of shades: 1 is white, 0 dark, more than 1 tinted blue; blank where there was nothing to measure.

    Args:
        grey: (row, column) of cells that are left grey and empty, as too little was measured.
    """
    columns = sorted({name for row in rows.values() for name in row} | set(rows))
    figure, axes = _figure(title, 1.9 + 0.38 * len(columns), 1.5 + 0.26 * len(rows))
    for i, (name, row) in enumerate(rows.items()):
        for j, column in enumerate(columns):
            value = row.get(column)
            if (name, column) in grey:
                _cell(axes, i, j, GREY)
            elif value is not None:
                level = min(1.0, max(0.0, value))
                _cell(axes, i, j, BLUE if value > 1 else (level, level, level), f"{value:.2f}", dark=level < 0.47)
    _table(axes, list(rows), columns)
    return figure


def percentages(
    title: str, panels: Mapping[str, tuple[str, Mapping[str, Mapping[str, float]]]], columns: Sequence[str],
    across: int = 2,
) -> Figure:  # fmt: skip
    """Tables of fractions side by side, `across` to a line: in % (under 0.5 % empty), full colour from 50 % on.

    Args:
        panels: by heading the colour and, by row and column, the fractions: no entry of a row that is there is 0. All
            panels have the same rows; one that a panel lacks is grey in it.
        columns: of every panel. The cells of a row's own column are framed.
    """
    names = sorted({name for _, table in panels.values() for name in table})
    lines = -(-len(panels) // across)
    size = (across * (1.7 + 0.32 * len(columns)), 0.4 + lines * (1.4 + 0.24 * len(names)))
    figure, _ = _figure(title, *size, axes=False)
    for nth, (heading, (colour, table)) in enumerate(panels.items()):
        axes = figure.add_subplot(lines, across, nth + 1)
        axes.set_title(heading, loc="left", fontsize=9)
        for i, name in enumerate(names):
            for j, column in enumerate(columns):
                value = table[name].get(column, 0.0) if name in table else None
                strength = min(1.0, 2 * (value or 0.0))
                text = f"{100 * value:.0f}" if value is not None and value >= _LEAST_SHOWN else ""
                fill = GREY if value is None else (colour, strength)
                _cell(axes, i, j, fill, text, dark=strength > 0.6, frame="#000000" if name == column else "#dddddd")
        _table(axes, names, columns)
    return figure


def save_plots(folder: str | Path, plots: Mapping[str, Figure]) -> list[str]:
    """Write each figure as an SVG file of its name, the folder too where there is none; returns the paths, sorted.

    Raises:
        InputError: another file of such a name is there (`plots_folder` says so beforehand).
    """
    own = OwnFiles(folder, plots)
    return sorted(str(own.write(name, svg(figure, bbox_inches="tight"))) for name, figure in plots.items())


def plots_folder(folder: str | Path | None) -> None:
    """InputError where the folder holds SVG files that no command left there; None is no folder."""
    if folder is not None:
        OwnFiles(folder, suffix=".svg")


def _figure(title: str, width: float, height: float, *, axes: bool = True) -> tuple[Figure, Axes]:
    """A figure of its own, without pyplot's global state; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure, figure.add_subplot() if axes else None  # type: ignore[return-value]


def _cell(
    axes: Axes, row: int, column: int, fill: object, text: str = "", *, dark: bool = False, frame: str = "#cccccc"
) -> None:
    from matplotlib.patches import Rectangle

    square = Rectangle((column, row), 0.94, 0.94, facecolor=fill, edgecolor=frame)  # type: ignore[arg-type]
    axes.add_patch(square)
    if text:
        ink = "#ffffff" if dark else "#000000"
        axes.text(column + 0.47, row + 0.47, text, ha="center", va="center", fontsize=7, color=ink)


def _table(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names above and to the left of cells that are 1 wide and high, the first row on top."""
    axes.set_xlim(0, max(1, len(columns)))
    axes.set_ylim(max(1, len(rows)), 0)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(len(columns)) + 0.47, columns, rotation=50, ha="left", fontsize=8)
    axes.set_yticks(np.arange(len(rows)) + 0.47, rows, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
