"""From the rows of trials to the numbers of an evaluation: shares with intervals, matrices, sweeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gazetteer.data.core.terminal import print_table
from gazetteer.data.inputs.edits import STAGES
from gazetteer.labeling.quality.intervals import Interval, fraction_interval, grouped_mean

Row = dict[str, Any]
Plain = Mapping[tuple[str, int], Row]
"""Rows of unedited pictures by prompt and seed."""
METHODS = {"landed": "spatial", "map_landed": "spatial_map", "outside_change": "outside_change"}
OF_GRID = ("gazetteer", "paper", "none")
OF_EFFECTS = ("gazetteer", "random_features")


def spatial_sweep(rows: Sequence[Row], keep: float, cases: int) -> tuple[tuple[bool, float], dict[str, float]]:
    """How good a setting is (larger is better), and its means; no rows are worse than any.

    cases: that were to be tried; one whose concept has no feature at the setting has no row, and did not land.
    """
    if not rows:
        return (False, -1.0), {}
    landed = float(sum(bool(row["landed"]) for row in rows)) / cases
    return (True, landed), {"landed": round(landed, 4), "pictures": len(rows)}


def global_sweep(rows: Sequence[Row], keep: float, cases: int) -> tuple[tuple[bool, float], dict[str, float]]:
    """As `spatial_sweep`: by how much the style rises, where the layout is kept; else how much of it is kept."""
    if not rows:
        return (False, -1.0), {}
    layouts_kept = [row["layout_kept"] for row in rows if row["layout_kept"] is not None]
    rise, fraction = (
        float(np.mean([row["rise"] for row in rows])),
        float(np.mean(layouts_kept)) if layouts_kept else 0.0,
    )
    means = {"rise": round(rise, 4), "layout_kept": round(fraction, 4), "pictures": len(rows)}
    return ((True, rise) if fraction >= keep else (False, fraction)), means


def spatial_summary(
    rows: Sequence[Row], known: Mapping[str, Collection[str]], concepts: Sequence[str]
) -> dict[str, Any]:
    """The spatial experiment by stage and method.

    Args:
        rows: of all methods, those of ``none`` without a stage.
        known: by stage the concepts that have features there; the others are left out of all of its methods.
        concepts: all that were asked for; those without a row are named under ``untried``.
    """
    split = ("spatial_grid", "spatial_concepts", "spatial_quadrants", "side_effects")
    counts = ("spatial_cases", "spatial_pictures", "not_tried")
    out: dict[str, Any] = {key: {} for key in (*METHODS.values(), "spatial_found", "present", *counts, *split)}
    plain = _plain(rows)
    out["unlabelled"] = {stage: [c for c in concepts if c not in known[stage]] for stage in known}
    out["untried"] = [c for c in concepts if c not in {row["name"] for row in rows}]
    for stage in known:
        of_stage = [row for row in rows if row["stage"] in (stage, "") and row["name"] in known[stage]]
        for key in (*METHODS.values(), "spatial_found", "present", *split):
            out[key][stage] = {}
        by_method = {
            method: [row for row in of_stage if row["method"] == method] for method in _values(of_stage, "method")
        }
        for method, own in by_method.items():
            for column, key in METHODS.items():
                out[key][stage][method] = _interval(own, lambda row, c=column: row[c])
            out["present"][stage][method] = _interval(own, lambda row: row["name"] in row["present"])
            showing = [row for row in own if row["name"] in row["present"]]
            out["spatial_found"][stage][method] = _interval(showing, lambda row: row["landed"])
        for method in (method for method in OF_GRID if method in by_method):
            own = by_method[method]
            out["spatial_concepts"][stage][method] = _successes(own, "name")
            out["spatial_quadrants"][stage][method] = _successes(own, "quadrant")
            out["spatial_grid"][stage][method] = {
                name: _successes([row for row in own if row["name"] == name], "quadrant")
                for name in sorted(_values(own, "name"))
            }
        for method in (method for method in OF_EFFECTS if method in by_method):
            out["side_effects"][stage][method] = _side_effects(by_method[method], plain)
        out["spatial_cases"][stage] = len(by_method.get("gazetteer", []))
        out["spatial_pictures"][stage] = {method: len(own) for method, own in by_method.items()}
        tried = {method: {row["name"] for row in own} for method, own in by_method.items()}
        every = set().union(*tried.values())
        out["not_tried"][stage] = {method: sorted(every - own) for method, own in tried.items() if every - own}
    return out


def global_summary(rows: Sequence[Row], stages: Sequence[str] = tuple(STAGES)) -> dict[str, Any]:
    """The global experiment by stage and method; side effects where rows of ``none``, without a stage, are given."""
    keys = ("global", "global_random", "global_detail", "global_words", "global_side_effects")
    out: dict[str, Any] = {key: {} for key in keys}
    plain = _plain(rows)
    for stage in stages:
        out["global_detail"][stage], out["global_side_effects"][stage] = {}, {}
        for method, key in (("gazetteer", "global"), ("random_features", "global_random")):
            own = [row for row in rows if row["stage"] == stage and row["method"] == method]
            detail = {
                "success": _interval(own, lambda row: row["rise"] > 0),
                "similarity": _interval(own, lambda row: row["rise"]),
                "read_as": _interval(own, lambda row: row["read_as"] == row["name"]),
                "distance": _interval(own, lambda row: row["distance"]),
                "layout_kept": _interval(
                    [row for row in own if row["layout_kept"] is not None], lambda row: row["layout_kept"]
                ),
            }
            out["global_detail"][stage][method], out[key][stage] = detail, detail["success"]
            out["global_side_effects"][stage][method] = _side_effects(own, plain)
        words = [row for row in rows if row["stage"] == stage and row["method"] == "gazetteer"]
        out["global_words"][stage] = {
            name: {
                "success": _interval(named, lambda row: row["rise"] > 0),
                "similarity": _interval(named, lambda row: row["rise"]),
                "n": len(named),
            }
            for name in sorted(_values(words, "name"))
            if (named := [row for row in words if row["name"] == name])
        }
    return out


def _interval(rows: Sequence[Row], value: Any) -> Interval:
    return _grouped([value(row) for row in rows], [row["prompt"] for row in rows])


def _grouped(values: Sequence[bool | float], prompts: Sequence[str]) -> Interval:
    """Pictures of one prompt are drawn together; truth values are counted."""
    counted = all(isinstance(value, bool | np.bool_) for value in values)
    interval = fraction_interval if counted else grouped_mean
    return interval([float(value) for value in values], prompts, resamples=2000)


def _plain(rows: Sequence[Row]) -> Plain:
    """The rows of unedited pictures, by what an edited picture shares with its own."""
    return {(row["prompt"], row["seed"]): row for row in rows if row["method"] == "none"}


def _values(rows: Sequence[Row], column: str) -> list[str]:
    """What stands in a column, each once, in order of first appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def _successes(rows: Sequence[Row], column: str) -> dict[str, dict[str, Any]]:
    """By the values of a column that occur: how often the thing landed, and in how many pictures it was tried."""
    groups = {value: [row for row in rows if row[column] == value] for value in sorted(_values(rows, column))}
    return {
        value: {"success": _interval(own, lambda row: row["landed"]), "n": len(own)} for value, own in groups.items()
    }


def _side_effects(rows: Sequence[Row], plain: Plain) -> dict[str, dict[str, dict[str, Interval]]]:
    """By what was asked for and other concept: the shares of pictures in which the other one appears, and vanishes.

    Apart, as they would cancel. Concepts that do neither in any picture are left out, and so are pictures whose
    unedited one is not recorded.
    """
    matrix: dict[str, dict[str, dict[str, Interval]]] = {}
    rows = [row for row in rows if (row["prompt"], row["seed"]) in plain]
    for name in sorted(_values(rows, "name")):
        own = [row for row in rows if row["name"] == name]
        prompts = [row["prompt"] for row in own]
        pairs = [(set(plain[row["prompt"], row["seed"]]["present"]), set(row["present"])) for row in own]
        changes = {
            "appears": [after - before for before, after in pairs],
            "vanishes": [before - after for before, after in pairs],
        }
        matrix[name] = {
            other: {
                kind: _grouped([other in concepts_changed for concepts_changed in changed], prompts)
                for kind, changed in changes.items()
            }
            for other in sorted(set().union(*changes["appears"], *changes["vanishes"]))
        }
    return matrix


def print_evaluation(result: Mapping[str, Any]) -> None:
    """The main numbers as text."""

    def shown(value: Interval) -> str:
        mean, low, high = value
        if mean is None or low is None or high is None:
            return "no picture" if mean is None else f"{mean:.2f}"
        return f"{mean:.2f} [{low:.2f}, {high:.2f}]"

    print("spatial success (chance 0.25): the asked thing is found, its mask's centre in the asked quadrant")
    names = dict.fromkeys(name for methods in result["spatial"].values() for name in methods)
    print_table(
        {"stage": "", **dict.fromkeys(names, ">"), "setting": ""},
        (
            [stage, *(shown(methods[name]) if name in methods else None for name in names),
             result["spatial_setting"][stage]]
            for stage, methods in result["spatial"].items()
        ),
    )  # fmt: skip
    for method, why in result.get("left_out", {}).items():
        print(f"left out: {method} ({why})")
    for stage, methods in result["not_tried"].items():
        for method, concepts in methods.items():
            print(f"{stage}: {method} has nothing to add for {', '.join(concepts)}; its means are without them")
    if result["untried"]:
        print(f"without a picture: {', '.join(result['untried'])}")
    if "global" in result:
        print("\nglobal success: the classifier's probability of the asked style rises")
        print_table(
            {"stage": "", "features": ">", "random features": ">", "setting": ""},
            (
                (stage, shown(value), shown(result["global_random"][stage]), result["global_setting"][stage])
                for stage, value in result["global"].items()
            ),
        )
    print(f"\n{result['seconds']:.0f} s")
