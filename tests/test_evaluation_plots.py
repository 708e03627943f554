"""The curves of evaluations: every method, at its place, and nothing where nothing was measured."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from jobs.evaluation_plots import layout_plots, progress, steer_plots, write_plots

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text: str) -> tuple[list[str], list[list[tuple[float, float]]]]:
    """The texts of a picture, and the points of its lines."""
    root = ElementTree.fromstring(text)
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    return [one.text or "" for one in root.iter(f"{SVG}text")], lines  # type: ignore[return-value]


def test_layouts_are_drawn_over_the_steps() -> None:
    nothing = [math.nan] * 3
    table = {
        "1.00": {"gazetteer": [0.25, 0.2, 0.3], "attention": nothing, "uncond/x": [0.1] * 3},
        "0.50": {"gazetteer": [0.5, 0.4, 0.6], "live": [0.75, 0.7, 0.8]},
        "0.00": {"gazetteer": [1.0, 0.9, 1.0]},
    }
    result = {"miou": table, "pointing": {}, "presence_ap": {}, "exact": {"1.00": {"miou": table["1.00"]}}}
    made = layout_plots(result)
    assert set(made) == {"miou.svg", "exact_miou.svg"}
    texts, (ours, live) = drawn(made["miou.svg"])
    assert {"gazetteer", "live", "0", "50", "100"} < set(texts) and not {"attention", "uncond/x"} & set(texts)
    assert [y for _, y in ours] == [200.0, 150.0, 50.0] and ours[0][0] < ours[1][0] < ours[2][0]  # noise to the left
    assert live == [(ours[1][0], 100.0)]


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
    _, (ours, none) = drawn(made["spatial.svg"])
    assert [y for _, y in ours] == [100.0, 150.0] and len(none) == 3
    detail = {"early": {"gazetteer": dict.fromkeys(("success", "distance", "layout_kept"), [1.0] * 3)}}
    made = steer_plots({**spatial, "global_detail": detail})
    assert {"global_success.svg", "global_layout_kept.svg"} < set(made)
    write_plots(tmp_path / "new", made)
    assert (tmp_path / "new" / "spatial.svg").read_text() == made["spatial.svg"]
