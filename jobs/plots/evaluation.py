"""An evaluation of layouts or of edits as figures, curves and tables: what `--plots FOLDER` writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gazetteer.data.inputs.edits import WINDOWS
from gazetteer.jobs.plots.charts import COLOURS, Point, curves, percentages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("gazetteer", "live", "paper", "prior", "chance", "attention", "probe", "neurons", "features_only", "uncond")
"""Of layouts, those that are drawn: as many as there are colours."""


def layout_plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """By file name the curves over the sampler's steps of what `evaluate_layout` gives."""
    made = {}
    exact = {t: figures["miou"] for t, figures in result["exact"].items()}
    tables = {"miou": result["miou"], "pointing": result["pointing"], "presence_ap": result["presence_ap"]}
    for name, table in {**tables, "exact_miou": exact}.items():
        lines: dict[str, list[Point]] = {
            method: _points((round(100 * (1 - float(t))), figures.get(method)) for t, figures in table.items())
            for method in METHODS
        }
        shown = {method: line for method, line in lines.items() if line}
        if shown:
            made[f"{name}.svg"] = curves(f"layout: {name}", shown, "progress in % (0: the first step, noise)", name)
    return made


def steer_plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """By file name the pictures of what `gazetteer.labeling.interventions.evaluation.experiments.Evaluation` gives.

    Curves over the stages, and tables of the side effects: a file for each experiment and method.
    """
    tables = {name: result[name] for name in ("spatial", "spatial_map", "spatial_found", "outside_change")}
    detail = result.get("global_detail", {})
    for name in ("success", "distance", "layout_kept"):
        tables[f"global_{name}"] = {
            stage: {method: values[name] for method, values in methods.items()} for stage, methods in detail.items()
        }
    made = {}
    for name, table in tables.items():
        methods = dict.fromkeys(method for figures in table.values() for method in figures)
        lines = {m: _points((progress(s), figures.get(m)) for s, figures in table.items()) for m in methods}
        shown = {method: line for method, line in lines.items() if line}
        if shown:
            label = "progress in %, middle of the stage: " + ", ".join(f"{s} {progress(s)}" for s in table)
            made[f"{name}.svg"] = curves(f"edits: {name}", shown, label, name)
    for name in ("side_effects", "global_side_effects"):
        made |= _effect_tables(name, result.get(name, {}))
    return made


def _effect_tables(name: str, effects: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """By file name what appears and vanishes, stage by stage; all methods with the same columns."""
    every = [row for methods in effects.values() for table in methods.values() for row in table.values()]
    columns = sorted({other for row in every for other in row})
    made = {}
    for method in dict.fromkeys(method for methods in effects.values() for method in methods) if columns else ():
        panels = {
            f"{stage}: {kind}": (
                COLOURS[i],
                {
                    asked: {other: both[kind][0] for other, both in row.items()}
                    for asked, row in methods.get(method, {}).items()
                },
            )
            for stage, methods in effects.items()
            for i, kind in enumerate(("appears", "vanishes"))
        }
        title = f"{name} of {method}: % of the pictures (row: what was asked for) in which a concept (column) …"
        made[f"{name}_{method}.svg"] = percentages(title, panels, columns)
    return made


def progress(stage: str) -> int:
    """How far sampling has come in the middle of a stage, in %."""
    return round(100 * (1 - sum(WINDOWS[stage]) / 2))


def _points(values: Any) -> list[Point]:
    """Points of (x, [mean, low, high]) in order of x, without a bar where there is no interval; those that nothing was
    measured for are left out."""
    points: list[Point] = []
    for x, value in values:
        mean, low, high = (math.nan if end is None else float(end) for end in value or [None] * 3)
        if not math.isnan(mean):
            low, high = (mean if math.isnan(end) else end for end in (low, high))
            points.append((float(x), mean, low, high))
    return sorted(points)
