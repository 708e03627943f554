"""The figures of evaluations: every method, at its place, and nothing where nothing was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gazetteer.jobs.plots.charts import COLOURS, GREY, bars, curves, matrix, save_plots
from gazetteer.jobs.plots.evaluation import layout_plots, progress, steer_plots


def drawn(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """By name in the legend the points of each line of a figure of curves."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    return {
        name: [(float(x), float(y)) for x, y in zip(*line.lines[0].get_data(), strict=True)]
        for line, name in zip(handles, names, strict=True)
    }


def cells(axes: Any) -> dict[tuple[int, int], Rectangle]:
    """The squares of a table by row and column."""
    return {(int(c.get_y()), int(c.get_x())): c for c in axes.patches if isinstance(c, Rectangle)}


def test_layouts_are_drawn_over_the_steps() -> None:
    nothing = [math.nan] * 3
    table = {
        "1.00": {"gazetteer": [0.25, 0.2, 0.3], "attention": nothing, "uncond/x": [0.1] * 3},
        "0.50": {"gazetteer": [0.5, 0.4, 0.6], "live": [0.75, 0.7, 0.8]},
        "0.00": {"gazetteer": [1.0, 0.9, 1.0], "live": [0.5, math.nan, math.nan]},  # of one prompt
    }
    result = {"miou": table, "pointing": {}, "presence_ap": {}, "exact": {"1.00": {"miou": table["1.00"]}}}
    made = layout_plots(result)
    assert set(made) == {"miou.svg", "exact_miou.svg"}
    figure = made["miou.svg"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "50", "100"]  # noise to the left
    assert drawn(figure) == {"gazetteer": [(0, 0.25), (1, 0.5), (2, 1.0)], "live": [(1, 0.75), (2, 0.5)]}
    ends = [end for line in figure.axes[0].collections for bar in line.get_segments() for end in bar.ravel()]  # type: ignore[attr-defined]
    assert len(ends) == 4 * 5 and np.isfinite(ends).all()


def test_edits_are_drawn_over_the_stages(tmp_path: Path) -> None:
    assert [progress(stage) for stage in ("early", "middle", "final")] == [20, 60, 90]
    stages = {
        "early": {"gazetteer": [0.75, 0.7, 0.8], "none": [0.25, 0.2, 0.3]},
        "middle": {"gazetteer": [0.5, 0.4, 0.6], "none": [0.25, 0.2, 0.3]},
        "final": {"gazetteer": [None] * 3, "none": [0.25, 0.2, 0.3]},
    }
    spatial = dict.fromkeys(("spatial", "spatial_map", "spatial_found", "outside_change"), stages)
    made = steer_plots(spatial)
    assert set(made) == {f"{name}.svg" for name in spatial}
    lines = drawn(made["spatial.svg"])
    assert lines["gazetteer"] == [(0, 0.75), (1, 0.5)] and len(lines["none"]) == 3
    detail = {"early": {"gazetteer": dict.fromkeys(("success", "distance", "layout_kept"), [1.0] * 3)}}
    made = steer_plots({**spatial, "global_detail": detail})
    assert {"global_success.svg", "global_layout_kept.svg"} < set(made)
    paths = save_plots(tmp_path / "new", made)
    assert [Path(path).name for path in paths] == sorted(made)
    before = {path: Path(path).read_bytes() for path in paths}
    assert all(ElementTree.fromstring(text).tag.endswith("svg") for text in before.values())
    save_plots(tmp_path / "new", steer_plots({**spatial, "global_detail": detail}))
    assert {path: Path(path).read_bytes() for path in paths} == before  # equal figures are equal files
    assert b">gazetteer</text>" in before[str(tmp_path / "new" / "spatial.svg")]  # texts stay texts


def test_curves_are_drawn_in_order_with_their_intervals() -> None:
    line = [(0.1, 0.0, 0.0, 0.25), (0.01, 1.0, 0.9, 1.0), (0.2, 1.5, 1.2, 1.8)]
    figure = curves("dose <response>", {"cad": line, "steps": line[:1]}, "fraction", "target")
    assert drawn(figure) == {"cad": [(0, 1.0), (1, 0.0), (2, 1.1)], "steps": [(1, 0.0)]}  # what is more is cut off
    intervals = figure.axes[0].collections[0]
    ends = [[tuple(map(float, end)) for end in segment] for segment in intervals.get_segments()]
    assert ends == [[(0, 0.9), (0, 1.0)], [(1, 0.0), (1, 0.25)], [(2, 1.1), (2, 1.1)]]
    assert figure.get_suptitle() == "dose <response>"


def test_doses_lie_where_they_are_on_a_logarithmic_scale() -> None:
    line = [(0.1, 0.0, 0.0, 0.25), (0.00033, 1.0, 0.9, 1.0), (0.01, 0.5, 0.4, 0.6)]
    figure = curves("dose", {"cad": line}, "fraction", "target", logarithmic=True)
    assert drawn(figure) == {"cad": [(0.00033, 1.0), (0.01, 0.5), (0.1, 0.0)]}
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.xaxis.get_major_formatter()(0.001) == "0.001"
    both = drawn(curves("dose", {"cad": line, "steps": line}, "fraction", "target", logarithmic=True))
    assert both["cad"][0][0] < 0.00033 < both["steps"][0][0] < 0.00036


def test_bars_are_stacked_from_the_left() -> None:
    axes = bars("where", {"dog": {"ff": 0.25, "conv": 0.5}, "cat": {"conv": 1.0}}).axes[0]
    found = [(round(bar.get_y() + 0.4), bar.get_x(), bar.get_width()) for bar in axes.patches if bar.get_width()]
    assert found == [(0, 0.0, 0.25), (0, 0.25, 0.5), (1, 0.0, 1.0)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["dog", "cat"] and axes.yaxis_inverted()


def test_a_matrix_leaves_out_what_was_not_measured() -> None:
    axes = matrix("kept", {"dog": {"cat": 0.5, "sky": None, "sea": 1.2}}, {("dog", "dog")}).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cat", "dog", "sea", "sky"]
    assert {place: to_hex(cell.get_facecolor()) for place, cell in cells(axes).items()} == {
        (0, 0): "#808080", (0, 1): GREY, (0, 2): "#cfe3ff",
    }  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["0.50", "1.20"]


def test_side_effects_are_tables_of_percentages() -> None:
    def both(appears: float, vanishes: float) -> dict:
        return {"appears": [appears, 0.0, 1.0], "vanishes": [vanishes, 0.0, 1.0]}

    effects = {
        "early": {"gazetteer": {"dog": {"moon": both(0.62, 0.004), "dog": both(0.0, 0.25)}, "house": {}}},
        "final": {"gazetteer": {"dog": {}}, "random_features": {"dog": {"sun": both(0.1, 0.0)}}},
    }
    empty = {key: {} for key in ("spatial", "spatial_map", "spatial_found", "outside_change")}
    made = steer_plots({**empty, "side_effects": effects, "global_side_effects": {"early": {"gazetteer": {"fog": {}}}}})
    assert set(made) == {"side_effects_gazetteer.svg", "side_effects_random_features.svg"}
    panels = made["side_effects_gazetteer.svg"].axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        f"{stage}: {kind}" for stage in ("early", "final") for kind in ("appears", "vanishes")
    ]
    assert [text.get_text() for panel in panels for text in panel.texts] == ["62", "25"]  # 0.4 % is left empty
    tables = [cells(panel) for panel in panels]
    assert [len(table) for table in tables] == [2 * 3] * 4  # rows, and the columns dog, moon, sun of either method
    grey = [[place for place, cell in table.items() if to_hex(cell.get_facecolor()) == GREY] for table in tables]
    assert grey == [[], [], [(1, 0), (1, 1), (1, 2)], [(1, 0), (1, 1), (1, 2)]]  # no house was tried at the end
    first = [tables[0][0, column] for column in range(3)]
    assert [cell.get_facecolor()[3] for cell in first] == [0.0, 1.0, 0.0]
    assert to_hex(first[1].get_facecolor()) == COLOURS[0]
    assert [to_hex(cell.get_edgecolor()) for cell in first] == ["#000000", "#dddddd", "#dddddd"]
