"""Few sampler steps leave some windows without one: edits there would change nothing, and are not measured as if."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.edits import STAGES, WINDOWS
from gazetteer.diffusion.schedule import Schedule, has_step
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.causal import measure
from gazetteer.jobs.experiments.causal.sweep import best_setting
from gazetteer.jobs.experiments.steer import steer_pictures, windows_with_steps


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 50])
def test_a_window_has_a_step_where_the_schedule_has_one_in_it(steps: int) -> None:
    schedule = Schedule.plain(range(steps))
    at = [schedule.t(place) for place in range(steps)]
    for low, high in WINDOWS.values():
        assert has_step((low, high), steps) == any(low < t <= high or low == t == 0.0 for t in at)
    assert sum(has_step(window, steps) for window in STAGES.values()) == min(steps, 3)


def test_windows_without_a_step_are_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert windows_with_steps(tuple(STAGES), 2, "steer.windows") == ("early", "final")
    said = "steer.windows middle is left out: of 2 sampler steps none lies in the window 0.2 < t ≤ 0.6"
    assert capsys.readouterr().err == f"{said}\n"
    with pytest.raises(InputError, match=f"{said}, and no other is asked for"):
        windows_with_steps(("middle",), 2, "steer.windows")


def test_an_edit_or_a_causal_pass_without_a_step_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit = {"targets": [{"block": "mid_block.attentions.0", "vector": [1.0]}], "window": "middle"}
    (tmp_path / "edits.json").write_text(json.dumps([edit]))
    config = load_config(None, ["generation.steps=2", "causal.window=middle"])
    with pytest.raises(InputError, match="The edit of 'features' would change nothing: of 2 sampler steps none"):
        steer_pictures(config, tmp_path / "edits.json", None, ["a dog"], 0, tmp_path / "out")
    monkeypatch.setattr(measure, "finished_run", lambda *_: None)
    with pytest.raises(InputError, match=r"causal\.window is middle, but of 2 sampler steps none"):
        measure.CausalPass(config, "run")


def test_of_settings_tried_with_one_feature_the_highest_rise_is_best() -> None:
    rows = [{"errors": 0.0, "rise": rise} for rise in (-0.1, 0.3, 0.2)]
    assert best_setting(rows)["rise"] == 0.3
    assert best_setting([*rows, {"errors": 1.5, "rise": 0.1}])["errors"] == 1.5
