"""The curves of evaluations: every method, at its place, and nothing where nothing was measured."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from gazetteer.jobs.plots.charts import GREY
from gazetteer.jobs.plots.evaluation import layout_plots, progress, steer_plots, write_plots

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
    root = ElementTree.fromstring(made["side_effects_gazetteer.svg"])
    texts = [one.text or "" for one in root.iter(f"{SVG}text")]
    assert [text for text in texts if ":" in text][1:] == [
        f"{stage}: {kind}" for stage in ("early", "final") for kind in ("appears", "vanishes")
    ]
    assert [text for text in texts if text.isdigit()] == ["62", "25"]  # 0.4 % is left empty
    cells = [one for one in root.iter(f"{SVG}rect") if one.get("stroke")]
    assert len(cells) == 4 * 2 * 3  # panels, rows, and the columns dog, moon, sun of either method
    assert [cell.get("fill") for cell in cells].count(GREY) == 2 * 3  # no house was tried at the end
    assert [cell.get("fill-opacity") for cell in cells[:3]] == ["0.00", "1.00", "0.00"]
    assert [cell.get("stroke") for cell in cells[:3]] == ["#000", "#ddd", "#ddd"]
    x, width = float(cells[-1].get("x", 0)), float(root.get("viewBox", "").split()[2])
    assert x + 26 < width
