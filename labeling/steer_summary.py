"""From the rows of trials to the numbers of an evaluation: shares with intervals, matrices, sweeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data.edits import QUADRANTS, STAGES
from labeling.steer_scores import Interval, interval

Row = dict[str, Any]
METHODS = {"landed": "spatial", "map_landed": "spatial_map", "outside_change": "outside_change"}


def spatial_sweep(rows: Sequence[Row], keep: float) -> tuple[tuple[bool, float], dict[str, float]]:
    """How good a setting is (larger is better), and its means; no rows are worse than any."""
    if not rows:
        return (False, -1.0), {}
    landed = float(np.mean([row["landed"] for row in rows]))
    return (True, landed), {"landed": round(landed, 4), "pictures": len(rows)}


def global_sweep(rows: Sequence[Row], keep: float) -> tuple[tuple[bool, float], dict[str, float]]:
    """As `spatial_sweep`: by how much the look rises, where the layout is kept; else how much of it is kept."""
    if not rows:
        return (False, -1.0), {}
    kept = [row["layout_kept"] for row in rows if row["layout_kept"] is not None]
    rise, share = float(np.mean([row["rise"] for row in rows])), float(np.mean(kept)) if kept else 0.0
    means = {"rise": round(rise, 4), "layout_kept": round(share, 4), "pictures": len(rows)}
    return ((True, rise) if share >= keep else (False, share)), means


def spatial_summary(
    rows: Sequence[Row], known: Mapping[str, Collection[str]], concepts: Sequence[str]
) -> dict[str, Any]:
    """The spatial experiment by stage and method.

    Args:
        rows: of all methods, those of ``none`` without a stage.
        known: by stage the concepts that have features there; the others are left out of all of its methods.
    """
    keys = [*METHODS.values(), "spatial_found", "present", "spatial_cases", "spatial_grid", "side_effects"]
    out: dict[str, Any] = {key: {} for key in keys}
    plain = {(row["prompt"], row["seed"]): row for row in rows if row["method"] == "none"}
    out["unlabelled"] = {stage: [c for c in concepts if c not in known[stage]] for stage in STAGES}
    for stage in STAGES:
        mine = [row for row in rows if row["stage"] in (stage, "") and row["name"] in known[stage]]
        for key in (*METHODS.values(), "spatial_found", "present"):
            out[key][stage] = {}
        for method in dict.fromkeys(row["method"] for row in mine):
            some = [row for row in mine if row["method"] == method]
            for column, key in METHODS.items():
                out[key][stage][method] = _interval(some, lambda row, c=column: row[c])
            out["present"][stage][method] = _interval(some, lambda row: row["name"] in row["present"])
            found = [row for row in some if row["name"] in row["present"]]
            out["spatial_found"][stage][method] = _interval(found, lambda row: row["landed"])
        steered = [row for row in mine if row["method"] == "gazetteer"]
        out["spatial_cases"][stage] = len(steered)
        out["spatial_grid"][stage] = _grid(steered)
        out["side_effects"][stage] = _side_effects(steered, plain)
    return out


def global_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The global experiment by stage and method."""
    out: dict[str, Any] = {"global": {}, "global_random": {}, "global_detail": {}, "global_words": {}}
    for stage in STAGES:
        out["global_detail"][stage] = {}
        for method, key in (("gazetteer", "global"), ("random_features", "global_random")):
            some = [row for row in rows if row["stage"] == stage and row["method"] == method]
            detail = {
                "success": _interval(some, lambda row: row["rise"] > 0),
                "similarity": _interval(some, lambda row: row["rise"]),
                "read_as": _interval(some, lambda row: row["read_as"] == row["name"]),
                "distance": _interval(some, lambda row: row["distance"]),
                "layout_kept": _interval(
                    [row for row in some if row["layout_kept"] is not None], lambda row: row["layout_kept"]
                ),
            }
            out["global_detail"][stage][method], out[key][stage] = detail, detail["success"]
        words = [row for row in rows if row["stage"] == stage and row["method"] == "gazetteer"]
        out["global_words"][stage] = {
            name: {
                "success": _mean(row["rise"] > 0 for row in words if row["name"] == name),
                "similarity": _mean(row["rise"] for row in words if row["name"] == name),
            }
            for name in sorted({row["name"] for row in words})
        }
    return out


def _interval(rows: Sequence[Row], value: Any) -> Interval:
    return interval([float(value(row)) for row in rows], [row["prompt"] for row in rows])


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def _grid(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Success by concept and quadrant."""
    return {
        name: {
            quadrant: _mean(row["landed"] for row in mine if row["quadrant"] == quadrant)
            for quadrant in QUADRANTS
            if any(row["quadrant"] == quadrant for row in mine)
        }
        for name in sorted({row["name"] for row in rows})
        if (mine := [row for row in rows if row["name"] == name])
    }


def _side_effects(rows: Sequence[Row], plain: Mapping[tuple[str, int], Row]) -> dict[str, dict[str, float]]:
    """By steered concept and other concept: change in the share of pictures that hold the other one; zeros left out."""
    matrix: dict[str, dict[str, float]] = {}
    for name in sorted({row["name"] for row in rows}):
        mine = [row for row in rows if row["name"] == name]
        sums: dict[str, int] = {}
        for row in mine:
            before = plain[row["prompt"], row["seed"]]["present"]
            for concept in set(before) ^ set(row["present"]):
                sums[concept] = sums.get(concept, 0) + (1 if concept in row["present"] else -1)
        matrix[name] = {c: round(v / len(mine), 4) for c, v in sorted(sums.items()) if v}
    return matrix


def print_evaluation(result: Mapping[str, Any]) -> None:
    """The main numbers as text."""

    def shown(value: Interval) -> str:
        mean, low, high = value
        return "no picture" if mean is None else f"{mean:.2f} [{low:.2f}, {high:.2f}]"

    print("spatial success (chance 0.25): the asked thing is found, its mask's centre in the asked quadrant")
    for stage, methods in result["spatial"].items():
        values = "  ".join(f"{name} {shown(value)}" for name, value in methods.items())
        print(f"  {stage:<8}{values}  ({result['spatial_setting'][stage]})")
    if "global" in result:
        print("global success: the judge's probability of the asked look rises")
        for stage, value in result["global"].items():
            print(
                f"  {stage:<8}features {shown(value)}  random features {shown(result['global_random'][stage])}"
                f"  ({result['global_setting'][stage]})"
            )
    print(f"{result['seconds']:.0f} s")
